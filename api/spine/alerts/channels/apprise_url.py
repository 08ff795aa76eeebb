"""Any other service that Apprise supports, by its Apprise URL."""

from collections.abc import Mapping
from typing import Annotated

from apprise.plugins.base import NotifyBase
from pydantic import AfterValidator, SecretStr

from spine.alerts.channels.base import (
    ChannelConfig,
    LongSecret,
    Place,
    endpoints_in,
    instantiate,
    parse_apprise_url,
    reads_a_file,
    shapes_the_request,
)
from spine.alerts.messages import AlertMessage

# These reach the machine that Spine runs on.
_LOCAL = {"blink1", "dbus", "gio", "glib", "gnome", "kde", "macosx", "qt", "syslog", "windows"}
# Their library connects in its own thread, where Spine cannot check the address.
_UNGUARDED = {"xmpp", "xmpps"}
# These keep an incident open until somebody closes it.
_WITH_INCIDENTS = {"opsgenie", "pagerduty", "pagertree", "splunk", "victorops", "spike", "signl4"}


def _is_apprise_url(secret: SecretStr) -> SecretStr:
    url = secret.get_secret_value()
    schema = str(parse_apprise_url(url).get("schema") or url.partition(":")[0].strip().lower())
    if schema in _LOCAL:
        raise ValueError("names a service of the local machine; a channel needs a service on the network")
    if schema in _UNGUARDED:
        raise ValueError("names a service that is not supported, because Spine cannot check the address it connects to")
    if reads_a_file(url):
        raise ValueError("has an option that names a file; Spine does not read local files for alerts")
    if shapes_the_request(url):
        raise ValueError("has an option that changes fields, headers or the method of the request; remove +, - and :")
    if not url.isprintable() or instantiate(url) is None:
        raise ValueError("is not a URL that Apprise supports; see https://appriseit.com/services/")
    return secret


class AppriseConfig(ChannelConfig):
    """An Apprise URL; the whole URL is a secret."""

    url: Annotated[LongSecret, AfterValidator(_is_apprise_url)]

    def shortcoming(self) -> str | None:
        """Apprise knows no incidents."""
        schema = str(parse_apprise_url(self.url.get_secret_value()).get("schema"))
        if schema not in _WITH_INCIDENTS:
            return None
        instead = "; a channel of type pagerduty does" if schema == "pagerduty" else ""
        return (
            "Through Apprise, each message opens an alert of its own there, "
            f"and Spine can neither acknowledge nor close it{instead}."
        )

    def endpoints(self) -> list[Place]:
        """The host in the URL, if the URL has one: the URLs of some services have no host."""
        try:
            return endpoints_in(self.url.get_secret_value())
        except ValueError:
            return []

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """Apprise's plugin for the URL."""
        found = instantiate(self.url.get_secret_value())
        if found is None:
            raise ValueError("Apprise no longer supports this URL")
        return found
