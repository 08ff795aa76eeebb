"""Send one message to one receiver through Apprise, in bounded time, and find out what the receiver said."""

import asyncio
import contextvars
import html
import json
import logging
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from pydantic import SecretStr

from spine.alerts.channels.base import ChannelConfig
from spine.alerts.channels.json_post import NOTIFY_TYPES
from spine.alerts.messages import AlertMessage, Outcome
from spine.egress.guard import Passage, guarded
from spine.egress.http_replies import LONGEST_TEXT, Reply, recorded_replies
from spine.errors import SpineError
from spine.secrets.sealed import MASK
from spine.text import shortened

Resolve = Callable[[str], Awaitable[str]]

SECONDS_TO_SEND = 10
MOST_IN_FLIGHT = 64
LONGEST_REASON = 300
# A part of a URL that is shorter than this says nothing that one could post with.
SHORTEST_SECRET_PART = 8
# The last part of a path and the name of a user are tokens more often than the others.
SHORTEST_PLAIN_PART = 4
# What may go well another time although it is the sender's fault by its number.
_TEMPORARY = {408, 409, 421, 423, 425, 429}
_SMTP_ANSWER = re.compile(r"\((\d{3}), b?['\"](.*?)['\"][,)]", re.DOTALL)
_IN_WORDS = [
    (r"Connection refused", "the connection was refused"),
    (
        r"NameResolution|Name or service not known|nodename nor servname|No address associated|getaddrinfo|"
        r"Temporary failure in name",
        "its host name does not resolve",
    ),
    (r"CERTIFICATE_VERIFY_FAILED|certificate verify failed", "its certificate cannot be verified"),
    (r"timed out|TimeoutError", "it did not answer in time"),
    (r"unreachable|No route to host", "its network is unreachable"),
    (
        r"RemoteDisconnected|Connection aborted|reset by peer|Connection unexpectedly closed|BrokenPipe|EOF",
        "it closed the connection",
    ),
    (r"SSL|TLS", "TLS with it failed"),
]

_log_lines: ContextVar[list[str] | None] = ContextVar("log_lines", default=None)


class _Capture(logging.Handler):
    """Keeps what Apprise logs for the send that it belongs to; it has secrets in it, so it goes nowhere else."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        lines = _log_lines.get()
        if lines is not None:
            with suppress(Exception):
                lines.append(record.getMessage())


def _take_over_log() -> None:
    logger = logging.getLogger("apprise")
    logger.handlers = [_Capture()]
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    # This one logs whole URLs, also as warnings.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


_take_over_log()


@dataclass
class _Evidence:
    """What is known of one try once it has ended."""

    notified: bool = False
    replies: list[Reply] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    refused: str | None = None


class Sender:
    """Sends notices in threads, so many at once at the most, each within `seconds`."""

    def __init__(
        self, allow_private: bool, resolve: Resolve, seconds: float = SECONDS_TO_SEND, most: int = MOST_IN_FLIGHT
    ) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="send")
        self._passages: set[Passage] = set()

    def close(self) -> None:
        """End what is under way; nobody waits for it."""
        for passage in list(self._passages):
            passage.abort()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def send(self, config: ChannelConfig, message: AlertMessage, recipient: str | None) -> Outcome:
        """Try once to tell a receiver; whatever it does, the outcome says so."""
        try:
            async with asyncio.timeout(self._seconds):
                secrets = {name: await self._resolve(ref) for name, ref in config.refs().items()}
        except SpineError as error:
            return Outcome(sent=False, reason=error.detail, permanent=error.status_code == 400)
        except TimeoutError:
            return Outcome(sent=False, reason="the channel's secret could not be looked up in time")
        hidden = secret_parts(config, secrets)
        with guarded(self._allow_private) as passage:
            self._passages.add(passage)
            try:
                return await self._in_thread(passage, config, message, recipient, secrets, hidden)
            except RuntimeError:
                # The threads are closed.
                return Outcome(sent=False, reason="Spine is being stopped")
            finally:
                # A thread that outlives this, after a cancellation say, must not hold up the end of the process.
                passage.abort()
                self._passages.discard(passage)

    async def _in_thread(
        self,
        passage: Passage,
        config: ChannelConfig,
        message: AlertMessage,
        recipient: str | None,
        secrets: Mapping[str, str],
        hidden: Collection[str],
    ) -> Outcome:
        loop = asyncio.get_running_loop()
        evidence = _Evidence()
        context = contextvars.copy_context()
        sending = loop.run_in_executor(
            self._threads, context.run, _notify, evidence, config, message, recipient, secrets
        )
        # Or asyncio would log an error that comes too late, with the URL in it.
        sending.add_done_callback(lambda done: done.cancelled() or done.exception())
        done, _ = await asyncio.wait([sending], timeout=self._seconds)
        in_time, answered = bool(done), bool(evidence.replies)
        if not in_time:
            passage.abort()
            # The thread gets an error now, unless it is still connecting; that ends by itself.
            done, _ = await asyncio.wait([sending], timeout=0.5)
        if not in_time and not (answered and evidence.notified):
            return Outcome(sent=False, reason=f"no answer within {self._seconds:g} s")
        if sending.cancelled():
            return Outcome(sent=False, reason="Spine is being stopped")
        problem = sending.exception() if done else None
        evidence.refused = passage.refused
        if problem is not None:
            evidence.lines.append(f"{type(problem).__name__}: {problem}")
        return _outcome(evidence, hidden)


def _notify(
    evidence: _Evidence, config: ChannelConfig, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]
) -> None:
    """What runs in the thread."""
    with recorded_replies() as evidence.replies, _recorded_log() as evidence.lines:
        plugin = config.plugin(message, recipient, secrets)
        # It sleeps between requests, for as long as a receiver wishes.
        plugin.throttle = lambda *_, **__: None  # type: ignore[method-assign]
        # Python refuses to send mail whose subject has a second line.
        title = " ".join(message.headline.split())
        evidence.notified = bool(
            plugin.notify(title=title, body=message.text, notify_type=NOTIFY_TYPES[message.severity])
        )


@contextmanager
def _recorded_log() -> Iterator[list[str]]:
    lines: list[str] = []
    token = _log_lines.set(lines)
    try:
        yield lines
    finally:
        _log_lines.reset(token)


def _outcome(evidence: _Evidence, hidden: Collection[str]) -> Outcome:
    reply = evidence.replies[-1] if evidence.replies else None
    if evidence.notified:
        status = reply.status if reply else None
        return Outcome(sent=True, status=status, reason=_phrase(reply, hidden) if reply else "accepted")
    if evidence.refused:
        return Outcome(sent=False, reason=evidence.refused, permanent=True)
    if reply is not None and not 200 <= reply.status < 300:
        permanent = 300 <= reply.status < 500 and reply.status not in _TEMPORARY
        reason = _phrase(reply, hidden)
        if 300 <= reply.status < 400:
            reason = f"{reason}; redirects are not followed"
        return Outcome(False, reply.status, reason, permanent, reply.retry_after)
    text = "\n".join(evidence.lines)
    if (answer := _SMTP_ANSWER.search(text)) is not None:
        code = int(answer[1])
        said = re.sub(r"\\[rn]", " ", answer[2]).replace("\\'", "'")
        return Outcome(False, code, _cut(f"{code} {scrub(said, hidden)}"), permanent=code >= 500)
    for pattern, words in _IN_WORDS:
        if re.search(pattern, text):
            return Outcome(sent=False, reason=words)
    if reply is not None:
        return Outcome(sent=False, status=reply.status, reason=_phrase(reply, hidden))
    last = evidence.lines[-1] if evidence.lines else "the receiver did not take it"
    return Outcome(sent=False, reason=_cut(scrub(last, hidden)))


def _phrase(reply: Reply, hidden: Collection[str]) -> str:
    body = reply.body
    if len(body) >= LONGEST_TEXT:
        # The end of it can be the beginning of a secret, which would not be recognised.
        body = body[: -max(map(len, _forms(hidden)), default=LONGEST_TEXT)]
    said = scrub(f"{reply.phrase}: {body}".strip(": \r\n"), hidden)
    return _cut(f"HTTP {reply.status} {said}".strip())


def _cut(text: str) -> str:
    return shortened(" ".join(text.split()), LONGEST_REASON)


def scrub(text: str, hidden: Collection[str]) -> str:
    """A text without these secrets, however a receiver may have encoded or decoded them."""
    lowered = text.lower()
    found = sorted((form for form in _forms(hidden) if form.lower() in lowered), key=len, reverse=True)
    return re.sub("|".join(map(re.escape, found)), MASK, text, flags=re.IGNORECASE) if found else text


def _forms(hidden: Collection[str]) -> set[str]:
    """These secrets as they are, and as URLs, JSON, HTML and logins have them."""
    plain = set(hidden) | {unquote(secret) for secret in hidden}
    encode: list[Callable[[str], str]] = [
        lambda secret: quote(secret, safe=""),
        quote,
        quote_plus,
        lambda secret: json.dumps(secret)[1:-1],
        html.escape,
        lambda secret: b64encode(secret.encode()).decode(),
    ]
    encoded = {form(secret) for secret in plain for form in encode}
    return plain | encoded | {part for secret in plain for part in _inside_base64(secret.encode())}


def _inside_base64(secret: bytes) -> Iterator[str]:
    """What Base64 of something longer has of a secret in it, which depends on where in it the secret begins."""
    for before in range(3):
        encoded = b64encode(bytes(before) + secret).decode()
        certain = encoded[(0, 2, 3)[before] : (before + len(secret)) * 8 // 6]
        if len(certain) >= SHORTEST_SECRET_PART:
            yield certain


def secret_parts(config: ChannelConfig, secrets: Mapping[str, str]) -> set[str]:
    """Everything that must not be told on: secrets as a whole, and of URLs the parts that one could post with."""
    found = set(secrets.values())
    for user in (getattr(config, "username", None), getattr(config, "smtp_user", None)):
        # As HTTP and SMTP encode them.
        found |= {login for word in secrets.values() for login in (f"{user}:{word}", f"\0{user}\0{word}")}
    for text in _secret_texts(dict(config)):
        found.add(text)
        with suppress(ValueError):
            found |= _url_parts(text)
    return {part for part in found if part}


def _url_parts(url: str) -> set[str]:
    parts = urlsplit(url)
    if not parts.scheme:
        return set()
    login, _, _ = parts.netloc.rpartition("@")
    values = [value for _, value in parse_qsl(parts.query)]
    pieces = [*parts.path.split("/"), *values, parts.path.strip("/"), parts.query]
    if parts.scheme not in ("http", "https"):
        # In Apprise's own URLs a token can be anywhere, also where others have the host.
        pieces += [parts.netloc, *re.split(r"[/:@?&=#,]+", url.partition("://")[2])]
    last = parts.path.rpartition("/")[2]
    found = {piece for piece in pieces if len(piece) >= SHORTEST_SECRET_PART}
    found |= {piece for piece in (last, parts.username or "") if len(piece) >= SHORTEST_PLAIN_PART}
    return found | {login, parts.password or ""}


def _secret_texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, SecretStr):
        yield tree.get_secret_value()
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _secret_texts(value)
