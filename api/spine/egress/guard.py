"""Guarded work: whatever library connects within it, the address that is checked is the address that is used.

Every library ends in `socket.connect`, which Python announces to audit hooks with the address itself, after names were
resolved and redirects followed; an exception there keeps the connection from being made. The hook acts only inside a
guarded block, which a context variable marks, so the rest of the process is not concerned. A thread belongs to the
block when it runs in a copy of its context. Libraries that connect in C (libpq, uvloop) are not seen.
"""

import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from spine.egress.addresses import refusal

# The connections of one piece of work that `abort` can still reach; older ones have ended long before.
MOST_KEPT = 64


class AddressRefused(OSError):
    """An address that may not be connected to; for a client library just a connection that failed."""


class Passage:
    """One piece of guarded work: what was refused in it, and the way to end it from outside."""

    def __init__(self, allow_private: bool, outer: "Passage | None" = None) -> None:
        self.allow_private: bool = allow_private and (outer is None or outer.allow_private)
        # Why the first address that was refused was refused.
        self.refused: str | None = None
        self._outer = outer
        self._aborted = False
        self._closed = False
        self._opened: deque[socket.socket] = deque()
        self._lock = threading.Lock()

    def abort(self) -> None:
        """Shut down every connection of this work, so that a thread which waits on one goes on; allow no new ones.

        A look-up of a name goes on until it ends by itself; what connects after it is refused.
        """
        with self._lock:
            self._aborted = True
            for connection in self._opened:
                # On Linux this ends a connect that waits for its answer, too; one that has not quite begun goes on
                # until its own time limit, and then neither sends nor receives.
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def admit(self, connection: socket.socket, address: Any) -> None:
        """Let a connection be made, or raise `AddressRefused`."""
        reason = self._reason(connection, address)
        if reason is not None:
            self._note(reason)
            raise AddressRefused(reason)
        self._keep(connection)

    def close(self) -> None:
        """Forget the connections, which are whoever's that made them."""
        with self._lock:
            self._closed = True
            while self._opened:
                self._opened.popleft().close()

    def _reason(self, connection: socket.socket, address: Any) -> str | None:
        if connection.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple) or not address:
            return "only addresses of the internet can be connected to"
        return refusal(str(address[0]), self.allow_private)

    def _note(self, reason: str) -> None:
        self.refused = self.refused or reason
        if self._outer is not None:
            self._outer._note(reason)

    def _keep(self, connection: socket.socket) -> None:
        if self._outer is not None:
            self._outer._keep(connection)
        with self._lock:
            # Under the lock, or `abort` could miss a connection that is just being made.
            if self._aborted:
                raise AddressRefused("the time for this request is over")
            # A thread that outlives its block is still judged, but nobody would close what is kept for it.
            if self._closed:
                return
            self._opened.append(_duplicate(connection))
            if len(self._opened) > MOST_KEPT:
                self._opened.popleft().close()


def _duplicate(connection: socket.socket) -> socket.socket:
    """A second descriptor of a connection: TLS takes the first one away from the socket that was connected."""
    descriptor = os.dup(connection.fileno())
    try:
        copy = socket.socket(connection.family, connection.type, connection.proto, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    # Both share one blocking mode, which a default time limit would have changed just now.
    copy.settimeout(connection.gettimeout())
    return copy


_passage: ContextVar[Passage | None] = ContextVar("passage", default=None)


@contextmanager
def guarded(allow_private: bool) -> Iterator[Passage]:
    """Guard all connections that this thread or task makes within the block."""
    passage = Passage(allow_private, _passage.get())
    token = _passage.set(passage)
    try:
        yield passage
    finally:
        passage.close()
        _passage.reset(token)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event not in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        return
    passage = _passage.get()
    # A message without an address goes where the socket was connected to before.
    if passage is not None and args[1] is not None:
        passage.admit(args[0], args[1])


# A hook stays for the life of the process, and finds this module's present names after a reload.
if not globals().get("_hooked"):
    sys.addaudithook(_audit)
_hooked = True
