"""The base of the configurations of all channel types."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from apprise import Apprise, AppriseAsset
from apprise.plugins import url_to_dict
from apprise.plugins.base import NotifyBase
from apprise.utils.parse import parse_qsd
from pydantic import AfterValidator, ConfigDict, Field, SecretStr

from spine.alerts.inert_text import inert
from spine.alerts.messages import AlertMessage
from spine.egress.hosts import split_http_url
from spine.schemas import Text
from spine.secrets.configs import SecretConfig

# Redirects are not followed: a redirect goes to an address that nobody configured.
ASSET = AppriseAsset(app_id="Spine", app_desc="Spine", app_url="", http_redirects=False)

# Options whose value is the path of a file; `template` is one only for the services below.
_FILES = {"keyfile", "subfile", "pgpkey", "pgppub", "pgpprv"}
_WITH_TEMPLATE_FILES = {"slack", "discord", "guilded", "tgram", "workflow", "workflows"}

# A host, and the port if the configuration shows it.
Place = tuple[str, int | None]


class ChannelConfig(SecretConfig):
    """The `config` of a channel: what is needed to reach its receivers.

    `SecretStr` fields are encrypted at rest and shown as `***`; `*_ref` fields refer to secrets kept elsewhere.
    """

    # Whether Spine acknowledges and resolves the incident that the service keeps for each problem.
    keeps_incidents: ClassVar[bool] = False

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True)

    def shortcoming(self) -> str | None:
        """What Spine cannot do at this service although the service could, as a sentence; None if there is nothing."""
        return None

    def endpoints(self) -> list[Place]:
        """The hosts and ports that the channel connects to, as far as the configuration shows them."""
        return []

    def hosts(self) -> list[str]:
        """The hosts of its endpoints."""
        return [host for host, _ in self.endpoints()]

    def receivers(self) -> list[str | None]:
        """The recipients, each of which gets its own delivery. A channel without recipients has `None`."""
        return [None]

    def refs(self) -> dict[str, str]:
        """The secrets to look up before sending: the reference in each `*_ref` field, by the field's name."""
        named = {name: getattr(self, name) for name in type(self).model_fields if name.endswith("_ref")}
        return {name: ref for name, ref in named.items() if ref is not None}

    def shown(self, text: str) -> str:
        """The text of a message as the service gets it; services may interpret what callers have written."""
        return inert(text)

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """The Apprise plugin that sends to this receiver; `secrets` has the values for `refs`."""
        raise NotImplementedError


def parse_apprise_url(url: str) -> dict[str, Any]:
    """What Apprise reads from a URL: its schema, its options and more; empty if Apprise does not support it."""
    return url_to_dict(url) or {}


def reads_a_file(url: str) -> bool:
    """Whether the URL makes Apprise read a file of the machine that Spine runs on."""
    parsed = parse_apprise_url(url)
    options = {str(name).lower() for name in parsed.get("qsd") or {}}
    return bool(options & _FILES or ("template" in options and parsed.get("schema") in _WITH_TEMPLATE_FILES))


def shapes_the_request(url: str) -> bool:
    """Whether the URL adds, removes or renames fields of the payload, adds headers, or sets another method than POST.

    With these, whoever may create a channel could send any request instead of an alert.
    """
    options = parse_qsd(url.partition("?")[2])
    read = parse_apprise_url(url)
    if any(found.get(kind) for found in (options, read) for kind in ("qsd+", "qsd-", "qsd:")):
        return True
    methods = {str(found.get("qsd", {}).get("method") or "POST").strip().upper() for found in (options, read)}
    return not methods <= {"POST", "PUT"}


def instantiate(url: str) -> NotifyBase | None:
    """Apprise's plugin for a URL; None if Apprise does not support it, or it has options that Spine refuses."""
    found = None if reads_a_file(url) or shapes_the_request(url) else Apprise.instantiate(url, asset=ASSET)
    return found if isinstance(found, NotifyBase) else None


def endpoints_in(url: str) -> list[Place]:
    """The host in a URL and its port, if there is one. Raises `ValueError`."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return [(parts.hostname, port)] if parts.hostname else []


def _is_http_url(secret: SecretStr) -> SecretStr:
    split_http_url(secret.get_secret_value())
    return secret


LongSecret = Annotated[SecretStr, Field(min_length=1, max_length=4_000)]
# Everything in a webhook's URL but its host is a secret: anyone who knows it can post.
SecretUrl = Annotated[LongSecret, AfterValidator(_is_http_url)]
ShortText = Annotated[Text, Field(min_length=1, max_length=255)]
