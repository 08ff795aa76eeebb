"""Servers that speak the beginning of a database protocol and then misbehave."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# Protocol 4.1, secure passwords and authentication plugins; no TLS.
_CAPABILITIES = 0x0000_8200 | 0x0008_0000


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port of loopback; each connection is handled in its own thread, and closed at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads: list[threading.Thread] = []
        taken: list[socket.socket] = []

        def begin(connection: socket.socket) -> None:
            with suppress(OSError):
                answer(connection)

        def take() -> None:
            with suppress(OSError):
                while True:
                    taken.append(listener.accept()[0])
                    threads.append(threading.Thread(target=begin, args=(taken[-1],), daemon=True))
                    threads[-1].start()

        taking = threading.Thread(target=take, daemon=True)
        taking.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    taking.join(5)
    for connection in taken:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(5)
    for connection in taken:
        connection.close()


@contextmanager
def mysql_that_requests_the_password(way: str) -> Iterator[tuple[int, list[bytes]]]:
    """A MySQL without TLS that requests the password in plain text, and what it then received."""
    sent: list[bytes] = []
    greeting = b"\x0a8.0.0\0" + struct.pack("<I", 1) + b"saltsalt\0" + struct.pack("<H", _CAPABILITIES & 0xFFFF)
    greeting += struct.pack("<BHHB", 45, 2, _CAPABILITIES >> 16, 21) + bytes(10)
    greeting += b"saltsaltsalt\0mysql_native_password\0"
    request = b"\xfe" + way.encode() + b"\0" + (b"\x05Password: " if way == "dialog" else b"\0")

    def answer(connection: socket.socket) -> None:
        connection.sendall(struct.pack("<I", len(greeting)) + greeting)
        connection.recv(4096)
        connection.sendall(struct.pack("<I", len(request) | 2 << 24) + request)
        sent.append(connection.recv(4096))

    with serving(answer) as port:
        yield port, sent


@contextmanager
def postgresql_that_stalls(seconds: float = 0) -> Iterator[int]:
    """A PostgreSQL that accepts any login, after so many seconds, and then never sends anything again."""

    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        time.sleep(seconds)
        # AuthenticationOk and ReadyForQuery.
        connection.sendall(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I")
        while connection.recv(4096):
            continue

    with serving(answer) as port:
        yield port
