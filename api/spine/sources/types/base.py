"""What the configurations of all source types share."""

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import SplitResult

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from spine.egress.addresses import host_refusal
from spine.egress.hosts import check_host, split_http_url
from spine.egress.limits import Limits
from spine.egress.own_services import endpoint_refusal
from spine.errors import BadRequest, FieldError
from spine.schemas import Text
from spine.secrets.configs import SecretConfig
from spine.secrets.refs import check_ref, ref_refusal
from spine.settings import Settings
from spine.sources.readers.base import Reader


def _is_plain_path(path: str) -> str:
    # fsspec gives `simplecache::...` and `zip://...::...` a meaning beyond that of a path, which Spine does not allow.
    if "::" in path or "://" in path:
        raise ValueError("must be a path without a protocol and without '::'")
    if not path.isprintable():
        raise ValueError("must not contain unprintable characters")
    return path


# A host and its port.
Place = tuple[str, int]
ShortText = Annotated[Text, Field(min_length=1, max_length=255)]
# A path or a pattern of paths.
PathText = Annotated[Text, Field(min_length=1, max_length=1_000), AfterValidator(_is_plain_path)]
Host = Annotated[ShortText, AfterValidator(check_host)]
Ref = Annotated[ShortText, AfterValidator(check_ref)]


class SourceConfig(SecretConfig):
    """The `config` of a source: how to read it.

    `SecretStr` fields are encrypted at rest and shown as `***`; `*_ref` fields refer to secrets stored elsewhere.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    free_fields = frozenset({"cache_ttl_seconds", "max_bytes", "timeout_seconds"})

    cache_ttl_seconds: Annotated[int, Field(ge=0, le=10 * 366 * 86_400)] | None = None
    max_bytes: Annotated[int, Field(ge=1, le=2**60)] | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=30 * 86_400)] | None = None

    def endpoints(self) -> dict[str, Place]:
        """The hosts and ports in the configuration, by the field that contains them."""
        return {}

    def is_list(self) -> bool:
        """Whether this is a pattern, which any number of files can match."""
        return False

    def secret_refs(self) -> dict[str, str]:
        """The secrets to look up before reading: references by the path of their field (`auth.password_ref`)."""
        return _refs_in(self, "")

    def check(self, settings: Settings) -> None:
        """Check against the settings of this Spine. Raises `BadRequest`, which names the field."""
        for field, (host, port) in self.endpoints().items():
            if reason := host_refusal(host, settings.allow_private_addresses) or endpoint_refusal(host, port):
                raise refused(field, reason)
        for field, ref in self.secret_refs().items():
            if reason := ref_refusal(ref, settings):
                raise refused(field, reason)

    def open_reader(self, secrets: Mapping[str, str], settings: Settings, limits: Limits) -> Reader:
        """A reader of this source; `secrets` has the values for `secret_refs`, by the same paths.

        It connects when its items are first requested. Raises `FetchFailure`.
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
    """The error for a value that this Spine does not allow."""
    return BadRequest(f"config.{field}: {reason}.", [FieldError(("body", "config", *field.split(".")), reason)])


def place_of(url: str) -> Place:
    """The host and port of an http or https URL."""
    parts = split_source_url(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def split_source_url(url: str) -> SplitResult:
    """The parts of a complete http or https URL without credentials. Raises `ValueError`."""
    parts = split_http_url(url)
    if "@" in parts.netloc:
        raise ValueError("must not contain a user or a password: use auth, with a reference to the password")
    return parts
