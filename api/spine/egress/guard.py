"""The guard on outbound connections: for any Python library, the address that is checked is the address that is used.

Every library calls `socket.connect` in the end. Python reports that call to audit hooks with the IP address, after
names are resolved and redirects are followed, and an exception in the hook prevents the connection. The hook acts only
inside a guarded block, which a context variable marks, so it does not affect the rest of the process. A thread belongs
to the block if it runs in a copy of its context. Libraries that connect in C (libpq, uvloop) bypass the guard.
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

from spine.egress.addresses import address_refusal
from spine.egress.own_services import connection_refusal

# The number of connections of one block that `abort` can shut down; older ones have ended long before.
MOST_TRACKED = 64


class AddressRefused(OSError):
    """The address is not allowed; client libraries treat this as a failed connection."""


class ConnectionGuard:
    """The guard of one block: it checks connections, records the first refusal, and can shut the connections down."""

    def __init__(self, allow_private: bool, outer: "ConnectionGuard | None" = None) -> None:
        self.allow_private: bool = allow_private and (outer is None or outer.allow_private)
        # The reason of the first refusal.
        self.refused: str | None = None
        self._outer = outer
        self._aborted = False
        self._closed = False
        self._opened: deque[socket.socket] = deque()
        self._lock = threading.Lock()

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Guard all connections that this thread or task makes inside the block; once for each guard."""
        token = _guard.set(self)
        try:
            yield
        finally:
            self.close()
            _guard.reset(token)

    @property
    def is_closed(self) -> bool:
        """Whether its block has ended."""
        return self._closed

    def abort(self) -> None:
        """Shut down every connection of the block, so that no thread waits on one, and refuse new ones.

        A name lookup in progress runs until it ends by itself; the connection after it is refused.
        """
        with self._lock:
            self._aborted = True
            for connection in self._opened:
                # On Linux this also ends a connect in progress. A connect that is only about to begin waits for its
                # own timeout, and then can neither send nor receive.
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def check(self, connection: socket.socket, address: Any) -> None:
        """Allow a connection, or raise `AddressRefused`."""
        reason = self._refusal(connection, address)
        if reason is not None:
            self._record(reason)
            raise AddressRefused(reason)
        self._track(connection)

    def close(self) -> None:
        """Stop tracking the connections, which their owners close."""
        with self._lock:
            self._closed = True
            while self._opened:
                self._opened.popleft().close()

    def _refusal(self, connection: socket.socket, address: Any) -> str | None:
        if connection.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple) or not address:
            return "only IPv4 and IPv6 connections are allowed"
        host = str(address[0])
        return address_refusal(host, self.allow_private) or connection_refusal(host, int(address[1]))

    def _record(self, reason: str) -> None:
        self.refused = self.refused or reason
        if self._outer is not None:
            self._outer._record(reason)

    def _track(self, connection: socket.socket) -> None:
        if self._outer is not None:
            self._outer._track(connection)
        with self._lock:
            # Under the lock, so that `abort` cannot miss a connection that is being made.
            if self._aborted:
                raise AddressRefused("the time limit of this request has passed")
            # The connections of a thread that outlives its block are still checked, but no longer tracked.
            if self._closed:
                return
            self._opened.append(_duplicate(connection))
            if len(self._opened) > MOST_TRACKED:
                self._opened.popleft().close()


def _duplicate(connection: socket.socket) -> socket.socket:
    """A second descriptor of a connection, because TLS detaches the first one from the socket that was connected."""
    descriptor = os.dup(connection.fileno())
    try:
        copy = socket.socket(connection.family, connection.type, connection.proto, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    # Both share one blocking mode, which a default timeout has just changed.
    copy.settimeout(connection.gettimeout())
    return copy


_guard: ContextVar[ConnectionGuard | None] = ContextVar("guard", default=None)


@contextmanager
def guarded(allow_private: bool) -> Iterator[ConnectionGuard]:
    """Guard all connections that this thread or task makes inside the block."""
    guard = new_guard(allow_private)
    with guard.guarding():
        yield guard


def new_guard(allow_private: bool) -> ConnectionGuard:
    """A guard for a block that another thread enters; `abort` before that has an effect too."""
    return ConnectionGuard(allow_private, _guard.get())


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event not in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        return
    guard = _guard.get()
    # A message without an address is sent to the peer of the socket, which was checked before.
    if guard is not None and args[1] is not None:
        guard.check(args[0], args[1])


# A hook stays for the life of the process, and uses the current names of this module after a reload.
if not globals().get("_hooked"):
    sys.addaudithook(_audit)
_hooked = True
