"""Configuration of HTTP sources."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from spine.egress.limits import Limits
from spine.schemas import Text
from spine.settings import Settings
from spine.sources.readers.base import Reader
from spine.sources.types.base import Place, Ref, ShortText, SourceConfig, place_of, split_source_url

_RESERVED_HEADERS = {
    *("accept-encoding", "connection", "content-length", "host", "range", "te", "transfer-encoding", "upgrade"),
    *("if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since"),
}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _are_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError("header names may contain only letters, digits and hyphens")
        if name.lower() in _RESERVED_HEADERS:
            raise ValueError(f"the header {name} is set by Spine")
        text = value.get_secret_value()
        if not text.isascii() or not text.isprintable():
            raise ValueError(f"the value of the header {name} contains characters that a header cannot have")
    return headers


def _is_query(query: SecretStr) -> SecretStr:
    text = query.get_secret_value()
    if not text.isprintable() or " " in text or "#" in text:
        raise ValueError("must be the part of a URL after the question mark, percent-encoded")
    return query


def _is_plain_url(url: str) -> str:
    split_source_url(url)
    return url


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _lower_type(sent: object) -> object:
    if isinstance(sent, dict) and isinstance(sent.get("type"), str):
        return {**sent, "type": sent["type"].lower()}
    return sent


Secret = Annotated[SecretStr, Field(min_length=1, max_length=4_000)]
Headers = Annotated[dict[str, Secret], Field(max_length=50), AfterValidator(_are_headers)]


class BasicAuth(BaseModel):
    """Basic authentication: a user and a reference to the password."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    type: Literal["basic"]
    username: Annotated[ShortText, Field(pattern="^[^:]+$")]
    password_ref: Ref


class BearerAuth(BaseModel):
    """Bearer authentication: a reference to the token."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    type: Literal["bearer"]
    token_ref: Ref


Auth = Annotated[BasicAuth | BearerAuth, Field(discriminator="type"), BeforeValidator(_lower_type)]


class HttpConfig(SourceConfig):
    """A URL and how to request it.

    The query of a URL often contains a key, so it is a separate secret: `url` is stored, shown and logged without it.
    """

    # Only the URL decides which server gets the query, the headers and the login.
    free_fields = SourceConfig.free_fields | {"query", "method", "headers", "auth"}

    url: Annotated[Text, Field(min_length=1, max_length=2_000), AfterValidator(_is_plain_url)]
    query: Annotated[Secret, AfterValidator(_is_query)] | None = None
    method: Annotated[Literal["GET", "POST"], BeforeValidator(_upper)] = "GET"
    headers: Headers | None = None
    auth: Auth | None = None

    @model_validator(mode="before")
    @classmethod
    def _separate_query(cls, sent: Any) -> Any:
        if not isinstance(sent, dict) or not isinstance(sent.get("url"), str):
            return sent
        url, _, _ = sent["url"].strip().partition("#")
        address, mark, query = url.partition("?")
        if mark and query and sent.get("query") is not None:
            raise ValueError("url already contains a query; send the query in url or as query, not both")
        return {**sent, "url": address, **({"query": query} if query else {})}

    @model_validator(mode="after")
    def _one_authorization(self) -> Self:
        if self.auth is not None and any(name.lower() == "authorization" for name in self.headers or {}):
            raise ValueError("auth and an Authorization header cannot be combined")
        return self

    def endpoints(self) -> dict[str, Place]:
        """The host and port of the URL."""
        return {"url": place_of(self.url)}

    def open_reader(self, secrets: Mapping[str, str], settings: Settings, limits: Limits) -> Reader:
        """A reader of the URL."""
        # Imported here because only HTTP sources need the client.
        from spine.sources.readers.http import HttpReader, HttpRequest, authorization

        headers = {name: value.get_secret_value() for name, value in (self.headers or {}).items()}
        if isinstance(self.auth, BasicAuth):
            headers["Authorization"] = authorization(self.auth.username, secrets["auth.password_ref"])
        elif isinstance(self.auth, BearerAuth):
            headers["Authorization"] = authorization(None, secrets["auth.token_ref"])
        query = self.query.get_secret_value() if self.query else None
        return HttpReader(HttpRequest(self.method, self.url, query, headers), settings.allow_private_addresses, limits)
