"""Limits on connections: clients that are slow or idle are cut, and the number of connections is bounded.

uvicorn limits only the time between two requests. Here every phase in which the server waits for the client has a
limit: the head of a request, its body, and a client that does not read the response. When all connections are in use, a
new one takes the place of another for which the server waits: of the address that has most of them, the one that has
made it wait longest. If the server waits for none, the new connection gets 503.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

log = structlog.get_logger("spine.http")

SECONDS_BETWEEN_REPORTS = 10.0

_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\n"
_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n"
_REST = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"


@dataclass(frozen=True)
class ConnectionLimits:
    """How long the server waits for a client in each phase, in seconds, and how many connections it keeps open."""

    head_seconds: float = 10.0
    body_seconds: float = 30.0
    # A client that reads nothing of a response for this long.
    unread_seconds: float = 60.0
    # Between two requests of a connection; uvicorn enforces it.
    idle_seconds: float = 15.0
    most: int = 500


class Phase(Enum):
    """What the server waits for on a connection."""

    HEAD = "the head of a request"
    BODY = "the body of a request"
    # uvicorn has a timer for this one.
    IDLE = "the next request"


class BoundedHttp(H11Protocol):
    """uvicorn's protocol with these limits; make one with other limits with `bounded_http`."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()
    # By the clock of the event loop.
    _full_again_at: ClassVar[float] = 0.0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._phase: tuple[Phase, object] | None = None
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, if there is room for it."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.most and not self._make_room():
            self._close(_UNAVAILABLE, b'{"detail":"The server has too many connections; try again in a few seconds."}')
            return
        self._enter(Phase.HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._enter(None)
        self._read_again()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handle data, and start or stop the timer for what the server waits for now."""
        super().data_received(data)
        self._follow(arrived=True)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._follow(arrived=False)

    def pause_writing(self) -> None:
        """Give the client a limited time to read."""
        super().pause_writing()
        self._unread_timer = self.loop.call_later(self.limits.unread_seconds, self._abort)

    def resume_writing(self) -> None:
        """The client has read."""
        self._read_again()
        super().resume_writing()

    def _read_again(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _follow(self, *, arrived: bool) -> None:
        """Find out what the server waits for; `arrived` says that data has just come in."""
        if self.transport.is_closing():
            self._enter(None)
        elif self.cycle is None:
            self._enter(Phase.HEAD)
        elif self.cycle.response_complete:
            # Between two requests, the first byte begins the head of the next one.
            begun = arrived or (self._phase is not None and self._phase == (Phase.HEAD, self.cycle))
            self._enter(Phase.HEAD if begun else Phase.IDLE)
        else:
            self._enter(Phase.BODY if self.cycle.more_body else None)

    def _enter(self, phase: Phase | None) -> None:
        """Start the time of a phase, unless it has begun: single bytes do not extend it."""
        now = (phase, self.cycle) if phase else None
        if now == self._phase:
            return
        self._phase, self._since = now, self.loop.time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if phase is Phase.HEAD:
            self._timer = self.loop.call_later(self.limits.head_seconds, self._time_out)
        elif phase is Phase.BODY:
            self._timer = self.loop.call_later(self.limits.body_seconds, self._time_out)

    def _time_out(self) -> None:
        phase = self._phase[0] if self._phase else Phase.IDLE
        log.info("connection_cut", address=self._address, waited_for=phase.value)
        self._close(_TIMEOUT, b'{"detail":"The request did not arrive in time."}')

    def _make_room(self) -> bool:
        """Close the connection that has made the server wait longest; false if it waits for none."""
        self._report_full()
        others = (one for one in self.connections if one is not self and isinstance(one, BoundedHttp))
        waiting = [one for one in others if one._phase is not None]
        if not waiting:
            return False
        ((busiest, _),) = Counter(one._address for one in waiting).most_common(1)
        longest = min((one for one in waiting if one._address == busiest), key=lambda one: one._since)
        longest.transport.abort()
        self.connections.discard(longest)
        return True

    def _report_full(self) -> None:
        """Log that all connections are in use, not more often than every few seconds."""
        now = self.loop.time()
        if now >= BoundedHttp._full_again_at:
            BoundedHttp._full_again_at = now + SECONDS_BETWEEN_REPORTS
            log.warning("connections_full", most=self.limits.most, address=self._address)

    @property
    def _address(self) -> str | None:
        return self.client[0] if self.client else None

    def _close(self, status_line: bytes, body: bytes) -> None:
        """Close the connection, with a response if none has begun."""
        self._enter(None)
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(status_line + _REST % (len(body), body))
        self.transport.close()

    def _abort(self) -> None:
        log.info("connection_cut", address=self._address, waited_for="a client to read its response")
        self.transport.abort()


def bounded_http(limits: ConnectionLimits) -> type[BoundedHttp]:
    """The protocol with these limits."""
    return type("BoundedHttp", (BoundedHttp,), {"limits": limits})
