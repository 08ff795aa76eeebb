"""What is asked of web servers, and what their answers mean."""

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
from spine.sources.readers.base import Validators, not_there
from spine.sources.readers.decoding import decoded_name, filename_of

# What may be told to another server than the one that was configured.
_HARMLESS = {"accept", "accept-language", "user-agent"}
_TRANSIENT = {408, 425, 429}
# How old the last change must be for another one to show: by the server's clock a second, which is what Last-Modified
# is told in, and by ours as much as clocks may differ.
_BY_ITS_CLOCK, _BY_OURS = timedelta(seconds=1), timedelta(minutes=1)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class HttpRequest:
    """A request; `url` has no query, which is a secret, as the values of the headers are."""

    method: str
    url: str
    query: str | None = field(default=None, repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def whole_url(self) -> str:
        """With the query."""
        return f"{self.url}?{self.query}" if self.query else self.url

    @property
    def key(self) -> str:
        """The URL, and something that is another for each query and does not tell what it is."""
        if not self.query:
            return self.url
        # Slow on purpose, and short: a query that could be guessed shall not be found by trying.
        mark = hashlib.scrypt(self.query.encode(), salt=self.url.encode(), n=2**12, r=8, p=1, dklen=4)
        return f"{self.url}?{mark.hex()}"


def authorization(username: str | None, secret: str) -> str:
    """The header for a user and a password, or without a user for a token. Raises `FetchFailure`."""
    if username is not None:
        return "Basic " + base64.b64encode(f"{username}:{secret}".encode()).decode()
    if not secret.isascii() or not secret.isprintable():
        raise FetchFailure(
            ErrorCategory.CONFIG, "The secret that auth.token_ref names has characters that a header cannot have."
        )
    return f"Bearer {secret}"


def conditions(known: Validators | None) -> dict[str, str]:
    """The headers that ask for content only when it is another than what is known."""
    headers = {}
    if known is not None and known.etag:
        headers["If-None-Match"] = known.etag
    if known is not None and known.last_modified:
        headers["If-Modified-Since"] = format_datetime(known.last_modified.astimezone(UTC), usegmt=True)
    return headers


def validators_of(response: httpx.Response, coded: bool) -> Validators:
    """What an answer tells of its content; the length of a compressed body is not that of its content.

    A time of the last change that could be that of another change as well is none (RFC 9110, section 8.8.2.2).
    """
    etag = response.headers.get("ETag")
    usable = etag is not None and etag.isprintable() and etag.isascii() and len(etag) <= 500
    etag = etag if usable else None
    modified = _moment_of(response, "Last-Modified")
    if modified is not None and not is_strong(etag) and not _is_settled(modified, response):
        modified = None
    return Validators(etag, modified, None if coded else length_of(response))


def is_strong(etag: str | None) -> bool:
    """Whether content with this ETag is the same to the last byte."""
    return etag is not None and not etag.startswith("W/")


def _is_settled(modified: datetime, response: httpx.Response) -> bool:
    told_at = _moment_of(response, "Date")
    age = datetime.now(UTC) - modified if told_at is None else told_at - modified
    return age >= (_BY_OURS if told_at is None else _BY_ITS_CLOCK)


def _moment_of(response: httpx.Response, header: str) -> datetime | None:
    with suppress(ValueError, TypeError, OverflowError):
        moment = parsedate_to_datetime(response.headers.get(header, ""))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    return None


def length_of(response: httpx.Response) -> int | None:
    """The length in bytes that an answer promises."""
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdecimal() else None


def still_known(known: Validators, response: httpx.Response) -> Validators:
    """What is known after the server has said that nothing is new."""
    told = validators_of(response, coded=True)
    modified: datetime | None = told.last_modified or known.last_modified
    return Validators(told.etag or known.etag, modified, known.size)


def name_of(response: httpx.Response, asked: str, answered: httpx.URL, coded: bool) -> str:
    """The name of the content: as the server tells it, or else the end of the URL that has one."""
    told = filename_of(response.headers.get("Content-Disposition"))
    ends = [unquote(path.rpartition("/")[2]) for path in (httpx.URL(asked).path, answered.path)]
    ends = [end for end in ends if end.isprintable()]
    name = told or next((end for end in ends if "." in end), None) or next(filter(None, ends), "content")
    return decoded_name(name) if coded else name


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether what one URL may be told, the other may be told, too: the same server, or the same over TLS."""
    ports = [url.port or _DEFAULT_PORTS[url.scheme] for url in (one, other)]
    if one.host != other.host:
        return False
    return (one.scheme, ports[0]) == (other.scheme, ports[1]) or (
        (one.scheme, ports[0], other.scheme, ports[1]) == ("http", 80, "https", 443)
    )


def harmless(headers: dict[str, str]) -> dict[str, str]:
    """The headers that another server may see."""
    return {name: value for name, value in headers.items() if name.lower() in _HARMLESS}


def status_failure(status: int, key: str) -> FetchFailure:
    """What an answer other than content means."""
    if status in (401, 403, 407):
        return FetchFailure(ErrorCategory.AUTH, f"The server does not let Spine read {key} (it answers {status}).")
    if status in (404, 410):
        return not_there(key)
    if status in _TRANSIENT or status >= 500:
        sentence = f"The server cannot give {key} now (it answers {status})."
        return FetchFailure(ErrorCategory.NETWORK, sentence, transient=True)
    return FetchFailure(ErrorCategory.SOURCE, f"The server does not give {key} (it answers {status}).")
