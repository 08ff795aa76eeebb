"""What the configurations of all channel types have in common."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from apprise import Apprise, AppriseAsset
from apprise.plugins import url_to_dict
from apprise.plugins.base import NotifyBase
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from spine.alerts.messages import AlertMessage
from spine.schemas import Text

# Redirects are not followed: one would lead to an address that nobody configured.
ASSET = AppriseAsset(app_id="Spine", app_desc="Spine", app_url="", http_redirects=False)

# Options whose value is the path of a file; for some services `template` is a name that only the service knows.
_FILES = {"keyfile", "subfile", "pgpkey", "pgppub", "pgpprv"}
_WITH_TEMPLATE_FILES = {"slack", "discord", "guilded", "tgram", "workflow", "workflows"}


class ChannelConfig(BaseModel):
    """The `config` of a channel: what is needed to reach its receivers.

    `SecretStr` fields are encrypted at rest and shown as `***`; `*_ref` fields name secrets that are kept elsewhere.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True)

    def hosts(self) -> list[str]:
        """The hosts that will be connected to, as far as the configuration tells."""
        return []

    def receivers(self) -> list[str | None]:
        """Who is told: each gets a delivery of its own. `None` stands for the one receiver that needs no name."""
        return [None]

    def refs(self) -> dict[str, str]:
        """The secrets to look up before sending: the name of the field, and the reference in it."""
        named = {name: getattr(self, name) for name in type(self).model_fields if name.endswith("_ref")}
        return {name: ref for name, ref in named.items() if ref is not None}

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """The Apprise object that tells this receiver; `secrets` are the values that `refs` name."""
        raise NotImplementedError


def parse_apprise_url(url: str) -> dict[str, Any]:
    """What Apprise reads in a URL: its schema and its options among other things; nothing when it does not know it."""
    return url_to_dict(url) or {}


def reads_a_file(url: str) -> bool:
    """Whether a URL has Apprise read a file, which would be one of the machine that Spine runs on."""
    said = parse_apprise_url(url)
    options = {str(name).lower() for name in said.get("qsd") or {}}
    return bool(options & _FILES or ("template" in options and said.get("schema") in _WITH_TEMPLATE_FILES))


def instantiate(url: str) -> NotifyBase | None:
    """Apprise's object for a URL; None when Apprise does not know it, or would read a file."""
    found = None if reads_a_file(url) else Apprise.instantiate(url, asset=ASSET)
    return found if isinstance(found, NotifyBase) else None


def host_of(url: str) -> list[str]:
    """The host in a URL, if there is one."""
    host = urlsplit(url).hostname
    return [host] if host else []


def _is_http_url(secret: SecretStr) -> SecretStr:
    url = secret.get_secret_value()
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    # What follows a backslash is a part of the host for some readers and not for others.
    if not usable or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("must be a whole http or https URL")
    return secret


LongSecret = Annotated[SecretStr, Field(min_length=1, max_length=4_000)]
# All of a webhook's URL but its host is a secret: whoever knows it can post.
SecretUrl = Annotated[LongSecret, AfterValidator(_is_http_url)]
ShortText = Annotated[Text, Field(min_length=1, max_length=255)]
