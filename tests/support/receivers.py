"""A real HTTP server on loopback that takes notices, or does what a test tells it to do instead."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.processes import wait_until
from tests.support.web import serving


@dataclass(frozen=True)
class Received:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


Behaviour = Callable[["Handler"], None]


@dataclass
class Receiver:
    """A server, what it got, and how it answers: `behaviours` one after the other, then `always`."""

    port: int
    requests: list[Received] = field(default_factory=list)
    behaviours: list[Behaviour] = field(default_factory=list)
    always: Behaviour = field(default_factory=lambda: accept)
    stopped: threading.Event = field(default_factory=threading.Event)
    # How many bytes an endless answer got rid of.
    talked: int = 0

    @property
    def url(self) -> str:
        """A webhook URL with a secret in its path."""
        return f"http://127.0.0.1:{self.port}/hooks/s3cr3t-path-of-hook"

    @property
    def posts(self) -> list[Received]:
        """The notices that came."""
        return [request for request in self.requests if request.method == "POST"]

    def wait_for(self, count: int, seconds: float = 15) -> list[Received]:
        """Wait until so many notices came."""
        wait_until(lambda: len(self.posts) >= count, f"{count} notices", seconds, every=0.02)
        return self.posts


class Handler(BaseHTTPRequestHandler):
    """Takes every request."""

    protocol_version = "HTTP/1.1"
    receiver: Receiver

    def do_POST(self) -> None:
        self._take()

    def do_GET(self) -> None:
        self._take()

    def _take(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            # The sender was killed within its request, which no server would take.
            return
        headers = dict(self.headers.items())
        receiver = self.receiver
        behaviour = receiver.behaviours.pop(0) if receiver.behaviours else receiver.always
        receiver.requests.append(Received(self.command, self.path, headers, body))
        with suppress(ConnectionError):
            behaviour(self)

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Send a whole answer."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def accept(handler: Handler) -> None:
    """Take the notice."""
    handler.answer(200, b"ok")


def refuse(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Answer with this status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.answer(status, body, named)


def hang(handler: Handler) -> None:
    """Never answer."""
    handler.receiver.stopped.wait(60)
    handler.close_connection = True


def drop(handler: Handler) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True


def drip(handler: Handler) -> None:
    """Send one byte of the headers after the other, for ever."""
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.receiver.stopped.wait(0.3):
        handler.wfile.write(b"x")
        handler.wfile.flush()


def endless(handler: Handler) -> None:
    """Take the notice and never stop talking."""
    _talk(handler, 200)


def redirect_endlessly(handler: Handler) -> None:
    """Point elsewhere and never stop talking."""
    _talk(handler, 302, Location="/elsewhere")


def bad_headers(handler: Handler) -> None:
    """Answer with something among the headers that is none."""
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 500 No\r\nno header at all\r\nContent-Length: 0\r\n\r\n")


def _talk(handler: Handler, status: int, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.close_connection = True
    while not handler.receiver.stopped.is_set():
        handler.wfile.write(b"x" * 65536)
        handler.receiver.talked += 65536


def echo(status: int) -> Behaviour:
    """Refuse and repeat all that came, secrets too."""

    def behave(handler: Handler) -> None:
        told = f"{handler.path} {dict(handler.headers.items())}".encode()
        handler.answer(status, told)

    return behave


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver on a port of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Receiver(server.server_address[1])
    server.RequestHandlerClass = type("BoundHandler", (Handler,), {"receiver": made})
    with serving(server):
        try:
            yield made
        finally:
            made.stopped.set()
