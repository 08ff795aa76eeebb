"""Any other service that Apprise knows, by its Apprise URL."""

from collections.abc import Mapping
from typing import Annotated

from apprise.plugins.base import NotifyBase
from pydantic import AfterValidator, SecretStr

from spine.alerts.channels.base import ChannelConfig, LongSecret, host_of, instantiate, parse_apprise_url, reads_a_file
from spine.alerts.messages import AlertMessage

# What these reach is the machine that Spine runs on.
_LOCAL = {"blink1", "dbus", "gio", "glib", "gnome", "kde", "macosx", "qt", "syslog", "windows"}
# Their library connects in a thread of its own, where nobody checks the address.
_UNGUARDED = {"xmpp", "xmpps"}


def _is_apprise_url(secret: SecretStr) -> SecretStr:
    url = secret.get_secret_value()
    schema = str(parse_apprise_url(url).get("schema") or url.partition(":")[0].strip().lower())
    if schema in _LOCAL:
        raise ValueError("names a service of the machine itself; a channel needs one that is reached over the network")
    if schema in _UNGUARDED:
        raise ValueError("names a service that Spine cannot send to, as it could not check the address")
    if reads_a_file(url):
        raise ValueError("has an option that names a file, which would be one of the machine that Spine runs on")
    if not url.isprintable() or instantiate(url) is None:
        raise ValueError("is not a URL that Apprise knows; see https://appriseit.com/services/")
    return secret


class AppriseConfig(ChannelConfig):
    """An Apprise URL, all of which is a secret."""

    url: Annotated[LongSecret, AfterValidator(_is_apprise_url)]

    def hosts(self) -> list[str]:
        """The host in the URL; services with a host of their own have none."""
        try:
            return host_of(self.url.get_secret_value())
        except ValueError:
            return []

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """What the URL stands for."""
        found = instantiate(self.url.get_secret_value())
        if found is None:
            raise ValueError("Apprise does not know this URL any more")
        return found
