"""Configuration of S3 sources: objects of Amazon S3 or of a compatible store."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory, Text
from spine.settings import Settings
from spine.sources.readers.base import Reader
from spine.sources.readers.globs import has_magic
from spine.sources.types.base import PathText, Place, Ref, SourceConfig, place_of, split_source_url


def _is_endpoint(url: str) -> str:
    parts = split_source_url(url)
    if parts.query or parts.fragment:
        raise ValueError("must be a URL without a query")
    return url


class S3Config(SourceConfig):
    """A bucket and a key, or a pattern of keys.

    Without references to credentials access is anonymous; the identity of Spine's machine or process is never used.
    """

    # Bucket and region can become part of the host name.
    bucket: Annotated[Text, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")]
    region: Annotated[Text, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] | None = None
    key: PathText
    endpoint_url: Annotated[Text, Field(min_length=1, max_length=2_000), AfterValidator(_is_endpoint)] | None = None
    access_key_ref: Ref | None = None
    secret_key_ref: Ref | None = None

    @model_validator(mode="after")
    def _both_credentials(self) -> Self:
        if (self.access_key_ref is None) != (self.secret_key_ref is None):
            raise ValueError("access_key_ref and secret_key_ref must be set together")
        return self

    def is_list(self) -> bool:
        """Whether `key` is a pattern."""
        return has_magic(self.key)

    def endpoints(self) -> dict[str, Place]:
        """The host and port of the endpoint."""
        return {"endpoint_url": place_of(self.endpoint_url)} if self.endpoint_url else {}

    def open_reader(self, secrets: Mapping[str, str], settings: Settings, limits: Limits) -> Reader:
        """A reader of the objects. Raises `FetchFailure` if the packages for S3 are not installed."""
        try:
            from spine.sources.readers.s3 import S3Location, S3Reader
        except ModuleNotFoundError as missing:
            sentence = f"S3 sources need the package {missing.name}, which is not installed."
            raise FetchFailure(ErrorCategory.CONFIG, sentence) from None
        keys = (secrets["access_key_ref"], secrets["secret_key_ref"]) if self.access_key_ref else None
        location = S3Location(self.bucket, self.key, self.endpoint_url, self.region, keys)
        return S3Reader(location, settings.allow_private_addresses, limits)
