"""A TCP proxy in front of a server, to count what passes and to break the connection on purpose."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.support.processes import free_port


@dataclass
class Proxy:
    """Forwards bytes to `target_port`; its switches can be set from the test at any time."""

    target_port: int
    port: int = field(default_factory=free_port)
    requests: list[str] = field(default_factory=list)
    drops_left: int = 0
    streams: bool = True
    _open: threading.Event = field(default_factory=threading.Event)
    # For each path that is held back: whether a request has come, and whether those may pass.
    _held: dict[str, tuple[threading.Event, threading.Event]] = field(default_factory=dict)
    # For each path whose requests are answered by 500: whether one has come.
    _failing: dict[str, threading.Event] = field(default_factory=dict)
    _refuses: bool = False
    _loop: asyncio.AbstractEventLoop | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._open.set()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Hold every request back for as long as the block lasts."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    @contextmanager
    def holding(self, path: str) -> Iterator[threading.Event]:
        """Hold back the requests that have this in their path for as long as the block lasts; the event says of one."""
        arrived, released = self._held[path] = threading.Event(), threading.Event()
        try:
            yield arrived
        finally:
            del self._held[path]
            released.set()

    @contextmanager
    def failing(self, path: str) -> Iterator[threading.Event]:
        """Answer 500 to requests that have this in their path; the event says of one."""
        failed = self._failing[path] = threading.Event()
        try:
            yield failed
        finally:
            del self._failing[path]

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Close every connection, and each new one at once, for as long as the block lasts."""
        self._refuses = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._close_all)
        try:
            yield
        finally:
            self._refuses = False

    def _close_all(self) -> None:
        for writer in self._writers:
            writer.close()

    @property
    def url(self) -> str:
        """Where the proxied Prefect API is."""
        return f"http://127.0.0.1:{self.port}/api"

    async def serve(self, stopped: asyncio.Event) -> None:
        """Forward until `stopped`."""
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
        async with server:
            await stopped.wait()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.close()
            return
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        self._writers |= {writer, upstream_writer}
        forwards = [
            asyncio.create_task(self._forward_requests(reader, upstream_writer, writer)),
            asyncio.create_task(_forward(upstream_reader, writer)),
        ]
        await asyncio.wait(forwards, return_when=asyncio.FIRST_COMPLETED)
        for forward in forwards:
            forward.cancel()
        for end in (writer, upstream_writer):
            end.close()
        self._writers -= {writer, upstream_writer}

    async def _forward_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            lines = [line for line in data.split(b"\r\n") if line.endswith(b" HTTP/1.1")]
            self.requests += [line.decode() for line in lines]
            if not self.streams and b"upgrade: websocket" in data.lower():
                return
            if lines and self.drops_left:
                # Let the server do the work, then lose its answer: the worst moment for a connection to break.
                self.drops_left -= 1
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(0.3)
                return
            failing = [event for path, event in self._failing.items() if any(path.encode() in one for one in lines)]
            if failing:
                failing[0].set()
                client.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await client.drain()
                return
            for path, (arrived, released) in list(self._held.items()):
                if any(path.encode() in line for line in lines):
                    arrived.set()
                    await asyncio.to_thread(released.wait)
            await asyncio.to_thread(self._open.wait)
            writer.write(data)
            await writer.drain()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextmanager
def proxy_to(target_port: int) -> Iterator[Proxy]:
    """A proxy that runs in a thread of its own."""
    proxy = Proxy(target_port)
    loop = asyncio.new_event_loop()
    stopped = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(proxy.serve(stopped),), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(5)
