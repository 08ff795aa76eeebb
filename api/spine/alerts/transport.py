"""Send one message to one receiver through Apprise, in bounded time, and find out what the receiver answered."""

import asyncio
import contextvars
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial

from apprise import NotifyFormat
from apprise.conversion import convert_between
from apprise.plugins.base import NotifyBase
from apprise.plugins.slack import NotifySlack
from apprise.plugins.telegram import NotifyTelegram

from spine.alerts.channels.base import ChannelConfig
from spine.alerts.channels.json_post import NOTIFY_TYPES
from spine.alerts.fitting import fit, utf16_units
from spine.alerts.inert_text import escaped_for_slack
from spine.alerts.messages import AlertMessage, Outcome
from spine.alerts.scrubbing import encoded_forms, scrub, secret_parts
from spine.egress.guard import ConnectionGuard, new_guard
from spine.egress.http_replies import LONGEST_TEXT, Reply, recorded_replies
from spine.errors import SpineError
from spine.text import shortened

Resolve = Callable[[str], Awaitable[str]]

SECONDS_TO_SEND = 10
MOST_IN_FLIGHT = 64
LONGEST_REASON = 300
# Statuses below 500 after which another attempt can succeed.
_TEMPORARY_STATUSES = {408, 409, 421, 423, 425, 429}
_SMTP_ANSWER = re.compile(r"\((\d{3}), b?['\"](.*?)['\"][,)]", re.DOTALL)
# What Apprise's log says, and the reason to show for it.
_REASONS = [
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


class _LogCapture(logging.Handler):
    """Keeps Apprise's log lines for the send that they belong to. They contain secrets, so they go nowhere else."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        lines = _log_lines.get()
        if lines is not None:
            with suppress(Exception):
                lines.append(record.getMessage())


def _capture_apprise_log() -> None:
    logger = logging.getLogger("apprise")
    logger.handlers = [_LogCapture()]
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    # urllib3 logs whole URLs, even in warnings.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


_capture_apprise_log()


@dataclass
class _Evidence:
    """What is known of one attempt after its end."""

    notified: bool = False
    replies: list[Reply] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    refused: str | None = None


class Sender:
    """Sends messages in threads: up to `max_in_flight` at once, each within `seconds`."""

    def __init__(
        self,
        allow_private: bool,
        resolve: Resolve,
        seconds: float = SECONDS_TO_SEND,
        max_in_flight: int = MOST_IN_FLIGHT,
    ) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(max_in_flight, thread_name_prefix="send")
        self._guards: set[ConnectionGuard] = set()

    def close(self) -> None:
        """Abort the sends in flight, without waiting for them."""
        for guard in list(self._guards):
            guard.abort()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def send(self, config: ChannelConfig, message: AlertMessage, recipient: str | None) -> Outcome:
        """Make one attempt to send a message; every failure is an outcome, not an exception."""
        try:
            async with asyncio.timeout(self._seconds):
                secrets = {name: await self._resolve(ref) for name, ref in config.refs().items()}
        except SpineError as error:
            return Outcome(sent=False, reason=error.detail, permanent=error.status_code == 400)
        except TimeoutError:
            return Outcome(sent=False, reason="the channel's secret could not be looked up in time")
        hidden = secret_parts(config, secrets)
        guard = new_guard(self._allow_private)
        self._guards.add(guard)
        try:
            return await self._in_thread(guard, config, message, recipient, secrets, hidden)
        except RuntimeError:
            # The threads are closed.
            return Outcome(sent=False, reason="Spine is being stopped")
        finally:
            if not guard.is_closed:
                # The thread outlives this block, after a cancellation. It must not delay the end of the process.
                guard.abort()
            self._guards.discard(guard)

    async def _in_thread(
        self,
        guard: ConnectionGuard,
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
            self._threads, context.run, _notify, guard, evidence, config, message, recipient, secrets
        )
        # Otherwise asyncio would log an error that nobody awaits, and the URL in it.
        sending.add_done_callback(lambda done: done.cancelled() or done.exception())
        done, _ = await asyncio.wait([sending], timeout=self._seconds)
        in_time, answered = bool(done), bool(evidence.replies)
        if not in_time:
            guard.abort()
            # The thread gets an error now, unless it is still connecting, which ends by itself.
            done, _ = await asyncio.wait([sending], timeout=0.5)
        if not in_time and not (answered and evidence.notified):
            return Outcome(sent=False, reason=f"no answer within {self._seconds:g} s")
        if sending.cancelled():
            return Outcome(sent=False, reason="Spine is being stopped")
        problem = sending.exception() if done else None
        evidence.refused = guard.refused
        if problem is not None:
            evidence.lines.append(f"{type(problem).__name__}: {problem}")
        return _outcome(evidence, hidden)


def _notify(
    guard: ConnectionGuard,
    evidence: _Evidence,
    config: ChannelConfig,
    message: AlertMessage,
    recipient: str | None,
    secrets: Mapping[str, str],
) -> None:
    """Send the message; runs in a thread, which also closes the guard: its sockets would hold up the event loop."""
    with guard.guarding(), recorded_replies() as evidence.replies, _recorded_log() as evidence.lines:
        plugin = config.plugin(message, recipient, secrets)
        # Otherwise the plugin would sleep between requests, for as long as a receiver requests.
        plugin.throttle = lambda *_, **__: None  # type: ignore[method-assign]
        title, body = _formatted(plugin, config.shown(message.headline), config.shown(message.text), message.link)
        kind = NOTIFY_TYPES[message.severity]
        evidence.notified = bool(plugin.notify(title=title, body=body, notify_type=kind, body_format=NotifyFormat.TEXT))


def _formatted(plugin: NotifyBase, title: str, body: str, whole: str) -> tuple[str, str]:
    """The title and body in the format that the plugin is set to: plain text, because plugins pass other formats on.

    Telegram's plugin sends plain text as HTML, too, but without escaping it. Both are cut to what the service accepts.
    """
    plugin.notify_format = NotifyFormat.HTML if isinstance(plugin, NotifyTelegram) else NotifyFormat.TEXT
    # Since Apprise 2, the plugin of Discord reads here what the URL requests, and mentions everyone named in Markdown.
    # Apprise 1 has no such attribute.
    vars(plugin)["_format_override"] = None
    converted = partial(convert_between, NotifyFormat.TEXT, plugin.notify_format)
    # Without a title of its own, a service gets the title as a part of the body.
    has_title = plugin.title_maxlen > 0
    if has_title:
        title = fit(title, plugin.title_maxlen)
    else:
        title = converted(fit(title, max(plugin.body_maxlen // 2, 1), measure=lambda part: len(converted(part))))
    # The plugin of Slack escapes its title only.
    encode = escaped_for_slack if isinstance(plugin, NotifySlack) else converted
    # Apprise puts a line break between them, and may not count as the service does.
    room = plugin.body_maxlen - (0 if has_title else utf16_units(title) + 2)
    return title, encode(fit(body, room, whole, lambda part: utf16_units(encode(part))))


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
        return Outcome(sent=True, status=status, reason=_describe_reply(reply, hidden) if reply else "accepted")
    if evidence.refused:
        return Outcome(sent=False, reason=evidence.refused, permanent=True)
    if reply is not None and not 200 <= reply.status < 300:
        permanent = 300 <= reply.status < 500 and reply.status not in _TEMPORARY_STATUSES
        reason = _describe_reply(reply, hidden)
        if 300 <= reply.status < 400:
            reason = f"{reason}; redirects are not followed"
        return Outcome(False, reply.status, reason, permanent, reply.retry_after)
    # The patterns take quadratic time, and a server can repeat what they begin with.
    text = "\n".join(evidence.lines)[-LONGEST_TEXT:]
    if (answer := _SMTP_ANSWER.search(text)) is not None:
        code = int(answer[1])
        words = re.sub(r"\\[rn]", " ", answer[2]).replace("\\'", "'")
        return Outcome(False, code, _cut(f"{code} {scrub(words, hidden)}"), permanent=code >= 500)
    for pattern, reason in _REASONS:
        if re.search(pattern, text):
            return Outcome(sent=False, reason=reason)
    if reply is not None:
        return Outcome(sent=False, status=reply.status, reason=_describe_reply(reply, hidden))
    last = evidence.lines[-1] if evidence.lines else "the receiver did not accept it"
    return Outcome(sent=False, reason=_cut(scrub(last, hidden)))


def _describe_reply(reply: Reply, hidden: Collection[str]) -> str:
    body = reply.body
    if len(body) >= LONGEST_TEXT:
        # The cut-off end can be the beginning of a secret, which would not be recognised.
        body = body[: -max(map(len, encoded_forms(hidden)), default=LONGEST_TEXT)]
    phrase = reply.phrase if reply.has_usual_phrase else scrub(reply.phrase, hidden)
    scrubbed = f"{phrase}: {scrub(body, hidden)}".strip(": \r\n")
    return _cut(f"HTTP {reply.status} {scrubbed}".strip())


def _cut(text: str) -> str:
    return shortened(" ".join(text.split()), LONGEST_REASON)
