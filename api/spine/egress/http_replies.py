"""Record the HTTP replies that a library receives, when the library itself only returns success or failure.

Apprise's plugins call `requests.post` themselves and return a bool. Within `recorded_replies`, the reply to every
request of `requests` in this context is recorded, no redirect is followed, and only the beginning of a body is read.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import requests

from spine.egress.own_services import proxied_refusal

# These bound a single wait. The limit for a whole attempt is the caller's.
SECONDS_TO_CONNECT, SECONDS_TO_READ = 5, 30
SECONDS_FOR_A_BODY = 3
LONGEST_BODY = 64 * 1024
LONGEST_TEXT = 16_000
LONGEST_WAIT = 24 * 3600.0


@dataclass(frozen=True)
class Reply:
    """One HTTP reply, its body cut to `LONGEST_TEXT` characters; `retry_after` in seconds."""

    status: int
    phrase: str
    body: str
    retry_after: float | None = None

    @property
    def has_usual_phrase(self) -> bool:
        """Whether HTTP itself has this phrase for the status, so that it cannot contain a secret."""
        return (self.status, self.phrase) in _USUAL_PHRASES


_USUAL_PHRASES = {(status.value, status.phrase) for status in HTTPStatus}
_replies: ContextVar[list[Reply] | None] = ContextVar("replies", default=None)


@contextmanager
def recorded_replies() -> Iterator[list[Reply]]:
    """Record the replies to all requests of this context while the block runs."""
    replies: list[Reply] = []
    token = _replies.set(replies)
    try:
        yield replies
    finally:
        _replies.reset(token)


_send = requests.Session.send
_environ_proxies = requests.sessions.get_environ_proxies
_PROXY_VARIABLES = [
    write(f"{kind}_proxy") for kind in ("http", "https", "all", "no") for write in (str.lower, str.upper)
]


def _recording_send(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
    replies = _replies.get()
    if replies is None:
        return _send(session, request, **options)
    _check_behind_proxy(request.url or "", options.get("proxies"))
    bounds = {"allow_redirects": False, "stream": True, "timeout": (SECONDS_TO_CONNECT, SECONDS_TO_READ)}
    # Otherwise `requests` reads the whole body of a redirect and parses its target, although it is not followed.
    session.get_redirect_target = _no_redirect_target  # type: ignore[method-assign, assignment]
    response = _send(session, request, **{**options, **bounds})
    retry_after = parse_retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
    reply = Reply(response.status_code, response.reason or "", "", retry_after)
    # Recorded before the body is read, because reading it can fail.
    replies.append(reply)
    content = _read_beginning(response)
    # As if `requests` had read the body itself, because plugins look at it.
    response._content, response._content_consumed = content, True  # type: ignore[attr-defined]
    replies[-1] = replace(reply, body=_text(content, response.encoding)[:LONGEST_TEXT])
    return response


def _proxies_for(url: str | bytes, no_proxy: Iterable[str] | None = None) -> dict[str, str]:
    """The proxies of the environment for a URL, found once: `requests` reads all variables for every request."""
    if _replies.get() is None or no_proxy is not None or isinstance(url, bytes):
        return _environ_proxies(url, no_proxy)
    scheme, _, rest = url.partition("://")
    place = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    return dict(_known_proxies(f"{scheme}://{place}", tuple(map(os.environ.get, _PROXY_VARIABLES))))


@lru_cache(maxsize=256)
def _known_proxies(url: str, _variables: tuple[str | None, ...]) -> dict[str, str]:
    return _environ_proxies(url, None)


def _check_behind_proxy(url: str, proxies: Any) -> None:
    """Raise `requests.ConnectionError` for a service of Spine: the guard sees only the address of the proxy."""
    if not requests.utils.select_proxy(url, proxies):
        return
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if refusal := proxied_refusal(parts.hostname or "", port):
        raise requests.ConnectionError(refusal)


def _no_redirect_target(response: requests.Response) -> None:
    """Replaces the method that returns the target of a redirect."""


def _text(content: bytes, encoding: str | None) -> str:
    """A body as text, even if the receiver gives an unknown encoding."""
    with suppress(LookupError, ValueError):
        return content.decode(encoding or "utf-8", errors="replace")
    return content.decode(errors="replace")


def _read_beginning(response: requests.Response) -> bytes:
    """The beginning of a body. Its status is known, so a body that breaks off or is too slow is not a failure."""
    content, until = b"", monotonic() + SECONDS_FOR_A_BODY
    with suppress(Exception):
        while len(content) < LONGEST_BODY and monotonic() < until:
            part = response.raw.read1(LONGEST_BODY, decode_content=True)
            if not part:
                break
            content += part
    response.close()
    return content[:LONGEST_BODY]


def parse_retry_after(retry_after: str | None, now: datetime) -> float | None:
    """The wait that a `Retry-After` header requests, in seconds, up to a day; None if it is missing or invalid."""
    if not retry_after:
        return None
    seconds = retry_after.strip()
    try:
        wait = float(seconds) if seconds.isdecimal() and seconds.isascii() else _until(seconds, now)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait, 0.0), LONGEST_WAIT)


def _until(date: str, now: datetime) -> float:
    moment = parsedate_to_datetime(date)
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()


requests.sessions.get_environ_proxies = _proxies_for
requests.Session.send = _recording_send  # type: ignore[method-assign, assignment]
