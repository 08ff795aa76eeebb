"""An interpreter that has imported what Prefect's server, the worker and the API have in common, and forks them.

`python -m spine.up.nursery <socket> <blanks>`. Each process then shares these modules in memory, and starts without
importing them: 80 MB and 1.7 s of CPU for each. A forked process does what `python -m <module>` does.
"""

import json
import os
import runpy
import selectors
import signal
import socket
import sys
import zoneinfo
from dataclasses import dataclass
from typing import Any

from spine.imports import importing

with importing():
    import cryptography.fernet
    import fastapi
    import prefect.cli
    import prefect.client.orchestration
    import prefect.workers.process
    import pydantic_settings
    import sqlalchemy.ext.asyncio
    import structlog
    import typer
    import uvicorn
    from prefect.context import refresh_global_settings_context

    from spine.up.command_line import CommandLine

COMMON = (cryptography, fastapi, prefect, pydantic_settings, sqlalchemy, structlog, typer, uvicorn)


@dataclass(frozen=True)
class Request:
    """A process to start: `python -m module arguments`, with this environment and output."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    output: int
    descriptors: list[int]

    @classmethod
    def read(cls, received: list[int]) -> "Request":
        """From a file, the output, and the descriptors that the process is to have."""
        with open(received[0], "rb") as file:
            file.seek(0)
            fields: dict[str, Any] = json.load(file)
        return cls(output=received[1], descriptors=received[2:], **fields)


class Nursery:
    """A single thread that waits for requests and for the ends of its children."""

    def __init__(self, connection: socket.socket, line: CommandLine) -> None:
        self._connection = connection
        self._line = line
        self._woken, self._wakes = socket.socketpair()
        self._wakes.setblocking(False)
        self._woken.setblocking(False)

    def serve(self) -> Request:
        """Fork for each request; returns in the forked process. This process ends when `spine up` has ended."""
        self._report(os.getpid(), None)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._woken in ready:
                    self._reap()
                if self._connection in ready and (request := self._receive()):
                    return request

    def _receive(self) -> Request | None:
        """Carry out a request; the request in the forked process, otherwise None."""
        data, received, _, _ = socket.recv_fds(self._connection, 1, 8)
        if not data:
            os._exit(0)
        request = Request.read(received)
        pid = os.fork()
        if pid == 0:
            self._become(request)
            return request
        for descriptor in received[1:]:
            os.close(descriptor)
        self._report(pid, None)
        return None

    def _become(self, request: Request) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for end in (self._connection, self._woken, self._wakes):
            end.close()
        os.setsid()
        os.dup2(request.output, 1)
        os.dup2(request.output, 2)
        os.close(request.output)
        os.environ.clear()
        os.environ.update(request.environment)
        given = [*map(str, request.descriptors), *request.arguments]
        self._line.show([sys.executable, "-P", "-m", request.module, *given])
        sys.argv = [request.module, *given]
        sys.orig_argv = [sys.executable, "-P", "-m", request.module, *given]
        # What was derived from the environment when these were imported.
        zoneinfo.reset_tzpath()
        refresh_global_settings_context()

    def _reap(self) -> None:
        self._woken.recv(4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._report(pid, os.waitstatus_to_exitcode(status))

    def _report(self, pid: int, status: int | None) -> None:
        try:
            self._connection.sendall(json.dumps([pid, status]).encode() + b"\n")
        except OSError:
            os._exit(0)


if __name__ == "__main__":
    line = CommandLine()
    request = Nursery(socket.socket(fileno=int(sys.argv[1])), line).serve()
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)
