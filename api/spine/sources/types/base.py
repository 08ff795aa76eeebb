"""What the configurations of all source types have in common."""

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from spine.egress.addresses import literal_refusal
from spine.egress.limits import Limits
from spine.errors import BadRequest, FieldError
from spine.schemas import Text
from spine.secrets.refs import check_ref
from spine.settings import Settings
from spine.sources.readers.base import Reader


def _unchained(path: str) -> str:
    # fsspec would read `simplecache::...` and `zip://...::...` as more than a path; nothing here does, nor ever shall.
    if "::" in path or "://" in path:
        raise ValueError("is a path, without a protocol before it and without '::'")
    if not path.isprintable():
        raise ValueError("has characters that cannot be printed")
    return path


def _is_host(host: str) -> str:
    if not all(char.isalnum() or char in ".-_:[]" for char in host):
        raise ValueError("must be the name or the address of a host")
    return host


ShortText = Annotated[Text, Field(min_length=1, max_length=255)]
# A path or a pattern of paths.
PathText = Annotated[Text, Field(min_length=1, max_length=1_000), AfterValidator(_unchained)]
Host = Annotated[ShortText, AfterValidator(_is_host)]
Ref = Annotated[ShortText, AfterValidator(check_ref)]


class SourceConfig(BaseModel):
    """The `config` of a source: what is needed to read it.

    `SecretStr` fields are encrypted at rest and shown as `***`; `*_ref` fields name secrets that are kept elsewhere.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    cache_ttl_seconds: Annotated[int, Field(ge=0, le=10 * 366 * 86_400)] | None = None
    max_bytes: Annotated[int, Field(ge=1, le=2**60)] | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=30 * 86_400)] | None = None

    def hosts(self) -> dict[str, str]:
        """The hosts that will be connected to, as far as the configuration tells, by the field that names them."""
        return {}

    def is_list(self) -> bool:
        """Whether this is a pattern, which any number of files can match."""
        return False

    def secret_refs(self) -> dict[str, str]:
        """The secrets to look up before reading: the path of the field (`auth.password_ref`), and its reference."""
        return _refs_in(self, "")

    def check(self, settings: Settings) -> None:
        """Refuse what is plainly forbidden here. Raises `BadRequest` naming the field."""
        for field, host in self.hosts().items():
            if reason := literal_refusal(host, settings.allow_private_addresses):
                raise refused(field, reason)

    def open_reader(self, secrets: Mapping[str, str], settings: Settings, limits: Limits) -> Reader:
        """What reads this source; `secrets` are the values that `secret_refs` names, under the same paths.

        Nothing is connected to before its items are asked for. Raises `FetchFailure`.
        """
        raise NotImplementedError


def _refs_in(model: BaseModel, before: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            found |= _refs_in(value, f"{before}{name}.")
        elif name.endswith("_ref") and value is not None:
            found[before + name] = value
    return found


def refused(field: str, reason: str) -> BadRequest:
    """A value that this Spine does not take."""
    return BadRequest(f"config.{field}: {reason}.", [FieldError(("body", "config", *field.split(".")), reason)])


def split_http_url(url: str) -> SplitResult:
    """The parts of a whole http or https URL without a login in it. Raises `ValueError`."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    # What follows a backslash is a part of the host for some readers and not for others.
    if not usable or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("must be a whole http or https URL")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or a password: send them as auth, the password as a reference")
    return parts
