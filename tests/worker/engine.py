"""A fork server without a worker: sends it requests, and reads its answers."""

import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import TypeVar

from spine_worker.forking import main
from spine_worker.forking.environment_block import BLANK, NAME
from spine_worker.forking.messages import Decoder, Load, Loaded, Message, Start, Started, encoded

from tests.support.processes import free_port

_SECONDS = 60
_FLOW = """
from prefect import flow

@flow
def reports() -> None:
    pass
"""
M = TypeVar("M", bound=Message)


@dataclass
class Server:
    """A fork server, at the other end of its socket."""

    socket: socket.socket
    pid: int = 0
    _decoder: Decoder = field(default_factory=Decoder)
    _answers: deque[Message] = field(default_factory=deque)

    def request(self, *messages: Load | Start) -> list["Server"]:
        """Send messages, which may be received at once, and return the server or run of each."""
        ends = []
        for message in messages:
            ours, theirs = socket.socketpair()
            ours.settimeout(_SECONDS)
            ends.append(Server(ours))
            data = encoded(message)
            with theirs:
                socket.send_fds(self.socket, [data[:1]], [theirs.fileno()])
            self.socket.sendall(data[1:])
        return ends

    def started(self, ends: list["Server"]) -> list["Server"]:
        """The requested servers or runs, when they have started."""
        for end in ends:
            end.pid = self.answer(Started).pid
        return ends

    def answer(self, kind: type[M]) -> M:
        """The next answer of this kind; others are skipped. Raises `EOFError` if the server has ended."""
        while True:
            while self._answers:
                if isinstance(answer := self._answers.popleft(), kind):
                    return answer
            if not (received := self.socket.recv(1 << 16)):
                raise EOFError
            self._answers += self._decoder.feed(received)

    def load(self, entrypoint: str) -> tuple["Server", Loaded]:
        """A flow server for an entrypoint, and what it reports."""
        (server,) = self.started(self.request(Load(entrypoint)))
        return server, server.answer(Loaded)


@contextmanager
def engine_server(folder: Path, home: Path) -> Iterator[tuple[Server, Loaded]]:
    """An engine server whose runs work in `folder`, and what it reports when it is ready.

    It may write bytecode, as it may outside of tests.
    """
    ours, theirs = socket.socketpair()
    ours.settimeout(_SECONDS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTHON"))}
    environment |= {NAME: BLANK, "PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, main.__file__, str(theirs.fileno()), str(folder)],
            cwd=folder,
            env=environment,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    server = Server(ours, process.pid)
    try:
        yield server, server.answer(Loaded)
    finally:
        ours.close()
        process.wait(_SECONDS)


@dataclass(frozen=True)
class Project:
    """A directory of code and an engine server in it. Prefect's home is another directory."""

    folder: Path
    home: Path
    engine: Server
    ready: Loaded

    def write(self, name: str, code: str) -> Path:
        """Write a file, and add a flow to it if its name begins with `flow`."""
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(dedent(code) + (_FLOW if name.startswith("flow") else ""))
        return file

    def load(self, name: str) -> Loaded:
        """What a server reports that has imported the flow of a module."""
        # A file that has changed just now counts as changed.
        time.sleep(0.05)
        server, loaded = self.engine.load(f"{name}:reports")
        server.socket.close()
        return loaded
