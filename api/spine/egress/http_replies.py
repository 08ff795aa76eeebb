"""What HTTP receivers answered, where the library in between only tells whether it went well.

Apprise's plugins call `requests.post` themselves and return a truth value. Within `recorded_replies` every request of
`requests` in this context leaves its reply behind, follows no redirect, and reads no more of a body than is needed.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import Any

import requests

# The limit of a whole try is the caller's; these only bound one wait.
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


_replies: ContextVar[list[Reply] | None] = ContextVar("replies", default=None)


@contextmanager
def recorded_replies() -> Iterator[list[Reply]]:
    """Collect the replies to all requests of this context within the block."""
    replies: list[Reply] = []
    token = _replies.set(replies)
    try:
        yield replies
    finally:
        _replies.reset(token)


_send = requests.Session.send


def _recording_send(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
    replies = _replies.get()
    if replies is None:
        return _send(session, request, **options)
    bounds = {"allow_redirects": False, "stream": True, "timeout": (SECONDS_TO_CONNECT, SECONDS_TO_READ)}
    # Or `requests` would read the whole body of a redirect, and stumble over its target, although it does not go there.
    session.get_redirect_target = _nowhere  # type: ignore[method-assign, assignment]
    response = _send(session, request, **{**options, **bounds})
    retry_after = parse_retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
    reply = Reply(response.status_code, response.reason or "", "", retry_after)
    # It is known from here on, whatever comes of the body.
    replies.append(reply)
    content = _beginning(response)
    # As if `requests` had read it: plugins look into it.
    response._content, response._content_consumed = content, True  # type: ignore[attr-defined]
    replies[-1] = replace(reply, body=_text(content, response.encoding)[:LONGEST_TEXT])
    return response


def _nowhere(response: requests.Response) -> None:
    """Where a response redirects to."""


def _text(content: bytes, encoding: str | None) -> str:
    """A body to be read by people; a receiver may name an encoding that nobody knows."""
    with suppress(LookupError, ValueError):
        return content.decode(encoding or "utf-8", errors="replace")
    return content.decode(errors="replace")


def _beginning(response: requests.Response) -> bytes:
    """The first part of a body; the status is known by then, so a body that breaks off or drips is no failure."""
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
    """The wait that a `Retry-After` header asks for, in seconds up to a day; None where it says nothing useful."""
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


requests.Session.send = _recording_send  # type: ignore[method-assign, assignment]
