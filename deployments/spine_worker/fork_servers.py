"""The worker's side of its fork servers: starts them, sends them requests, and notices when they end."""

import asyncio
import socket
import subprocess
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.utilities.processutils import get_sys_executable

from spine_worker.forked import ForkedProcess, ReadyRun, kill, observe_end
from spine_worker.forking.environment_block import BLANK, NAME
from spine_worker.forking.files import Signatures, first_changed
from spine_worker.forking.messages import (
    Decoder,
    Exited,
    Failed,
    Load,
    Loaded,
    Message,
    Start,
    Started,
    encoded,
)
from spine_worker.terminal import outputs

_MAIN = Path(__file__).resolve().parent / "forking" / "main.py"
# The time limits for a server's imports, and for its answers after that.
_SECONDS_TO_LOAD = 120.0
_SECONDS_TO_ANSWER = 30.0
_SECONDS_BETWEEN_TRIES = 0.005


class ServerGone(Exception):
    """A fork server has ended or does not answer."""


class ServerFailed(ServerGone):
    """An engine server could not prepare Prefect for runs, probably because Prefect has changed."""


class _Connection:
    """The messages to and from one fork server."""

    def __init__(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        self._socket = ours
        self.is_open = True
        self._is_retired = False
        self.loaded: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._sending = asyncio.Lock()
        # Requests that have not been answered, in their order.
        self._requested: deque[asyncio.Future[ForkedProcess]] = deque()
        self._forked: dict[int, ForkedProcess] = {}
        self._reading = asyncio.create_task(self._read())

    async def fork(self, message: Start | Load, passed: socket.socket) -> ForkedProcess:
        """Request a process, which gets the socket. Raises `ServerGone`."""
        answer: asyncio.Future[ForkedProcess] = asyncio.get_running_loop().create_future()
        async with self._sending:
            if not self.is_open:
                raise ServerGone("it has ended")
            self._requested.append(answer)
            try:
                await self._send(message, passed)
            except OSError as error:
                raise ServerGone("it has ended") from error
        return await answer

    async def _send(self, message: Message, passed: socket.socket) -> None:
        data = encoded(message)
        while True:
            try:
                # The socket goes with the first byte.
                socket.send_fds(self._socket, [data[:1]], [passed.fileno()])
                break
            except BlockingIOError:
                await asyncio.sleep(_SECONDS_BETWEEN_TRIES)
        await asyncio.get_running_loop().sock_sendall(self._socket, data[1:])

    def retire(self) -> None:
        """Let the server end as soon as all processes that it has forked have ended."""
        self._is_retired = True
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self._is_retired and not self._forked and not self._requested:
            self._reading.cancel()

    async def _read(self) -> None:
        loop, decoder = asyncio.get_running_loop(), Decoder()
        try:
            while received := await loop.sock_recv(self._socket, 1 << 16):
                for message in decoder.feed(received):
                    self._handle(message)
        except OSError:
            pass
        finally:
            self._close()

    def _handle(self, message: Message) -> None:
        match message:
            case Loaded() if not self.loaded.done():
                self.loaded.set_result(message)
            case Failed(reason) if not self.loaded.done():
                self.loaded.set_exception(ServerFailed(reason))
            case Started(pid):
                process = self._forked[pid] = ForkedProcess(pid)
                answer = self._requested.popleft()
                if not answer.done():
                    answer.set_result(process)
            case Exited(pid, status):
                if pid in self._forked:
                    self._forked.pop(pid).set_ended(status)
                self._close_when_idle()

    def _close(self) -> None:
        self.is_open = False
        self._socket.close()
        answers: list[asyncio.Future[Any]] = [self.loaded, *self._requested]
        for answer in answers:
            if not answer.done():
                answer.set_exception(ServerGone("it has ended"))
                # Mark it as retrieved, since nothing may wait for it any more.
                answer.exception()
        for process in self._forked.values():
            observe_end(process)


class FlowHandle:
    """A flow server: it forks the runs of one entrypoint, whose flow it has imported unless each run has to."""

    def __init__(self, process: ForkedProcess, connection: _Connection, loaded: Loaded) -> None:
        self._process = process
        self._connection = connection
        self._files = loaded.files
        # What makes each run import the flow for itself.
        self.side_effect = loaded.side_effect
        # The kinds of hooks that the flow may have.
        self.hooks = frozenset(loaded.hooks)

    @property
    def pid(self) -> int:
        """The id of the server's process."""
        return self._process.pid

    def outdated(self) -> str | None:
        """What has changed since the import: a file, or the process, if it has ended."""
        if not self._connection.is_open:
            return "its process"
        return first_changed(self._files)

    async def fork(
        self, environment: Mapping[str, str], known: Mapping[str, Any] | None = None, *, stream_output: bool
    ) -> "ReadyRun":
        """Fork a run, which prepares itself and then waits. Raises `ServerGone`."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                async with asyncio.timeout(_SECONDS_TO_ANSWER):
                    start = Start(dict(environment), stream_output, dict(known or {}))
                    process = await self._connection.fork(start, theirs)
            except BaseException as error:
                ours.close()
                if isinstance(error, TimeoutError):
                    kill(self.pid)
                    raise ServerGone("it does not answer") from error
                raise
        return ReadyRun(process, ours)

    def retire(self) -> None:
        """Fork no more runs, and end when the forked ones have ended."""
        self._connection.retire()


class EngineHandle:
    """An engine server: it has imported Prefect in one directory and environment."""

    def __init__(self, process: asyncio.subprocess.Process, connection: _Connection, files: Signatures) -> None:
        self._process = process
        self._connection = connection
        self._files = files

    @classmethod
    async def start(cls, directory: Path, environment: Mapping[str, str]) -> "EngineHandle":
        """Start a server and wait until it has imported Prefect. Raises `ServerGone`."""
        ours, theirs = socket.socketpair()
        with theirs, outputs() as (stdout, stderr):
            process = await asyncio.create_subprocess_exec(
                get_sys_executable(),
                str(_MAIN),
                str(theirs.fileno()),
                str(directory),
                cwd=directory,
                env={**environment, NAME: BLANK},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                # Ctrl-C in a terminal is for the worker only.
                start_new_session=True,
            )
        connection = _Connection(ours)
        loaded = await _loaded(process.pid, connection)
        return cls(process, connection, loaded.files)

    @property
    def pid(self) -> int:
        """The id of the server's process."""
        return self._process.pid

    def outdated(self) -> str | None:
        """What has changed since the start: a file or directory, or the process, if it has ended."""
        return first_changed(self._files) if self._connection.is_open else "its process"

    async def load(self, entrypoint: str) -> FlowHandle:
        """Fork a flow server, and wait until it has imported the flow. Raises `ServerGone`."""
        process, connection, loaded = await self._fork(Load(entrypoint))
        if loaded.side_effect is None:
            return FlowHandle(process, connection, loaded)
        process, connection, _ = await self._fork(Load(entrypoint, loaded.modules))
        # The side effect is known until one of the files changes.
        return FlowHandle(process, connection, loaded)

    async def _fork(self, message: Load) -> tuple[ForkedProcess, _Connection, Loaded]:
        ours, theirs = socket.socketpair()
        connection = _Connection(ours)
        with theirs:
            process = await self._connection.fork(message, theirs)
        return process, connection, await _loaded(process.pid, connection)

    def retire(self) -> None:
        """Fork no more servers, and end when the forked ones have ended."""
        self._connection.retire()


async def _loaded(pid: int, connection: _Connection) -> Loaded:
    try:
        async with asyncio.timeout(_SECONDS_TO_LOAD):
            return await connection.loaded
    except TimeoutError as error:
        kill(pid)
        raise ServerGone(f"importing took more than {_SECONDS_TO_LOAD:.0f} s") from error
    except asyncio.CancelledError:
        kill(pid)
        raise
