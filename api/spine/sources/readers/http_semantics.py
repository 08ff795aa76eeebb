"""HTTP requests, conditional headers, and the meaning of responses."""

import base64
import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from urllib.parse import unquote

import httpx

from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.sources.readers.base import Validators, not_found
from spine.sources.readers.decoding import decoded_name, filename_of

# The headers that may be sent to another server than the configured one.
_SAFE_HEADERS = {"accept", "accept-language", "user-agent"}
_TRANSIENT = {408, 425, 429}
# The age of the last change from which another change must show: one second by the server's clock, which is the
# resolution of Last-Modified; by our clock, as much as clocks may differ.
_AGE_BY_SERVER_CLOCK, _AGE_BY_OUR_CLOCK = timedelta(seconds=1), timedelta(minutes=1)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class HttpRequest:
    """A request; `url` has no query, because the query is a secret, as are the values of the headers."""

    method: str
    url: str
    query: str | None = field(default=None, repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def whole_url(self) -> str:
        """The URL with its query."""
        return f"{self.url}?{self.query}" if self.query else self.url

    @property
    def key(self) -> str:
        """The URL, with a digest in the place of its query."""
        if not self.query:
            return self.url
        # Slow and short on purpose, so that a guessable query cannot be found by brute force.
        digest = hashlib.scrypt(self.query.encode(), salt=self.url.encode(), n=2**12, r=8, p=1, dklen=4)
        return f"{self.url}?{digest.hex()}"


def authorization(username: str | None, secret: str) -> str:
    """The Authorization header for a user and a password, or for a token without a user. Raises `FetchFailure`."""
    if username is not None:
        return "Basic " + base64.b64encode(f"{username}:{secret}".encode()).decode()
    if not secret.isascii() or not secret.isprintable():
        sentence = "auth.token_ref points to a secret with characters that a header cannot have."
        raise FetchFailure(ErrorCategory.CONFIG, sentence)
    return f"Bearer {secret}"


def conditional_headers(known: Validators | None) -> dict[str, str]:
    """The headers that request content only if it has changed."""
    headers = {}
    if known is not None and known.etag:
        headers["If-None-Match"] = known.etag
    if known is not None and known.last_modified:
        headers["If-Modified-Since"] = format_datetime(known.last_modified.astimezone(UTC), usegmt=True)
    return headers


def validators_of(response: httpx.Response, compressed: bool) -> Validators:
    """The validators of a response; the length of a compressed body is not that of its content.

    A Last-Modified so recent that a second change could have the same one is ignored (RFC 9110, section 8.8.2.2).
    """
    etag = response.headers.get("ETag")
    usable = etag is not None and etag.isprintable() and etag.isascii() and len(etag) <= 500
    etag = etag if usable else None
    modified = _moment_of(response, "Last-Modified")
    if modified is not None and not is_strong(etag) and not _is_settled(modified, response):
        modified = None
    return Validators(etag, modified, None if compressed else length_of(response))


def is_strong(etag: str | None) -> bool:
    """Whether content with this ETag is the same byte for byte."""
    return etag is not None and not etag.startswith("W/")


def _is_settled(modified: datetime, response: httpx.Response) -> bool:
    sent_at = _moment_of(response, "Date")
    age = datetime.now(UTC) - modified if sent_at is None else sent_at - modified
    return age >= (_AGE_BY_OUR_CLOCK if sent_at is None else _AGE_BY_SERVER_CLOCK)


def _moment_of(response: httpx.Response, header: str) -> datetime | None:
    with suppress(ValueError, TypeError, OverflowError):
        moment = parsedate_to_datetime(response.headers.get(header, ""))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    return None


def length_of(response: httpx.Response) -> int | None:
    """The `Content-Length` of a response; None without a valid one."""
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdecimal() else None


def refreshed(known: Validators, response: httpx.Response) -> Validators:
    """The known validators, updated from a response with status 304."""
    current = validators_of(response, compressed=True)
    modified: datetime | None = current.last_modified or known.last_modified
    return Validators(current.etag or known.etag, modified, known.size)


def name_of(response: httpx.Response, requested: str, final: httpx.URL, compressed: bool) -> str:
    """The file name: from Content-Disposition, else from the end of the requested or the final URL."""
    declared = filename_of(response.headers.get("Content-Disposition"))
    ends = [unquote(path.rpartition("/")[2]) for path in (httpx.URL(requested).path, final.path)]
    ends = [end for end in ends if end.isprintable()]
    name = declared or next((end for end in ends if "." in end), None) or next(filter(None, ends), "content")
    return decoded_name(name) if compressed else name


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether both URLs name the same server, so that both may get the same secrets; http may become https."""
    ports = [url.port or _DEFAULT_PORTS[url.scheme] for url in (one, other)]
    if one.host != other.host:
        return False
    return (one.scheme, ports[0]) == (other.scheme, ports[1]) or (
        (one.scheme, ports[0], other.scheme, ports[1]) == ("http", 80, "https", 443)
    )


def safe_headers(headers: dict[str, str]) -> dict[str, str]:
    """The headers that may be sent to another server."""
    return {name: value for name, value in headers.items() if name.lower() in _SAFE_HEADERS}


def status_failure(status: int, key: str) -> FetchFailure:
    """The failure for a status without content."""
    if status in (401, 403, 407):
        return FetchFailure(ErrorCategory.AUTH, f"The server denied access to {key} (status {status}).")
    if status in (404, 410):
        return not_found(key)
    if status in _TRANSIENT or status >= 500:
        sentence = f"The server cannot send {key} at the moment (status {status})."
        return FetchFailure(ErrorCategory.NETWORK, sentence, transient=True)
    return FetchFailure(ErrorCategory.SOURCE, f"The server did not send {key} (status {status}).")
