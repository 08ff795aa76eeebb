"""The worker's side of its fork servers: starting them, asking them, and noticing their end."""

import asyncio
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.utilities.processutils import get_sys_executable

from spine_worker.forking.environment_block import BLANK, NAME
from spine_worker.forking.files import Signatures, changed
from spine_worker.forking.messages import GO, Decoder, Exited, Load, Loaded, Message, Start, Started, encoded

_MAIN = Path(__file__).resolve().parent / "forking" / "main.py"
# Until a server has imported what it is to import, and until one that has answers.
_SECONDS_TO_LOAD = 120.0
_SECONDS_TO_ANSWER = 30.0
_SECONDS_UNTIL_NEXT_TRY = 0.005
# The status of a run whose end nobody was there to see.
_UNSEEN = -signal.SIGKILL


class ServerGone(Exception):
    """A fork server has ended or does not answer."""


class Forked:
    """A process that a server has forked, in the form that Prefect's process handles expect."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    def end(self, status: int) -> None:
        """Note how it has ended; the first word counts."""
        if self.returncode is None:
            self.returncode = status
            self._ended.set()

    async def wait(self) -> None:
        """Wait for its end."""
        await self._ended.wait()


class _Connection:
    """The messages of one fork server, and its end."""

    def __init__(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        self._socket = ours
        self.is_open = True
        self._is_retired = False
        self.loaded: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._sending = asyncio.Lock()
        self._starting: deque[asyncio.Future[Forked]] = deque()
        self._forked: dict[int, Forked] = {}
        self._reading = asyncio.create_task(self._read())

    async def fork(self, message: Start | Load, passed: socket.socket) -> Forked:
        """Have a process forked, to which the socket is passed. Raises `ServerGone`."""
        answer: asyncio.Future[Forked] = asyncio.get_running_loop().create_future()
        async with self._sending:
            if not self.is_open:
                raise ServerGone("it has ended")
            self._starting.append(answer)
            try:
                await self._pass(message, passed)
            except OSError as error:
                raise ServerGone("it has ended") from error
        return await answer

    async def _pass(self, message: Message, passed: socket.socket) -> None:
        data = encoded(message)
        while True:
            try:
                # The socket goes with the first byte.
                socket.send_fds(self._socket, [data[:1]], [passed.fileno()])
                break
            except BlockingIOError:
                await asyncio.sleep(_SECONDS_UNTIL_NEXT_TRY)
        await asyncio.get_running_loop().sock_sendall(self._socket, data[1:])

    def retire(self) -> None:
        """Let the server end as soon as what it has forked has ended."""
        self._is_retired = True
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self._is_retired and not self._forked and not self._starting:
            self._reading.cancel()

    async def _read(self) -> None:
        loop, decoder = asyncio.get_running_loop(), Decoder()
        try:
            while received := await loop.sock_recv(self._socket, 1 << 16):
                for message in decoder.feed(received):
                    self._take(message)
        except OSError:
            pass
        finally:
            self._close()

    def _take(self, message: Message) -> None:
        match message:
            case Loaded() if not self.loaded.done():
                self.loaded.set_result(message)
            case Started(pid):
                process = self._forked[pid] = Forked(pid)
                answer = self._starting.popleft()
                if not answer.done():
                    answer.set_result(process)
            case Exited(pid, status):
                if pid in self._forked:
                    self._forked.pop(pid).end(status)
                self._close_when_idle()

    def _close(self) -> None:
        self.is_open = False
        self._socket.close()
        answers: list[asyncio.Future[Any]] = [self.loaded, *self._starting]
        for answer in answers:
            if not answer.done():
                answer.set_exception(ServerGone("it has ended"))
                # Nobody may be waiting any more.
                answer.exception()
        for process in self._forked.values():
            _watch(process)


def _watch(process: Forked) -> None:
    """Wait for a process whose server is gone."""
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        process.end(_UNSEEN)
        return

    def ended() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        process.end(_UNSEEN)

    loop.add_reader(descriptor, ended)


class FlowServer:
    """A fork server for the runs of one entrypoint, which it has imported unless each run has to."""

    def __init__(self, process: Forked, connection: _Connection, loaded: Loaded) -> None:
        self._process = process
        self._connection = connection
        self._files = loaded.files
        # What keeps runs from sharing what was imported.
        self.refusal = loaded.refusal
        # The kinds of hooks that the flow may have.
        self.hooks = frozenset(loaded.hooks)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def outdated(self) -> str | None:
        """The file that has changed since it was imported, or why else it is of no use any more."""
        if not self._connection.is_open:
            return "its process"
        return changed(self._files)

    async def fork(self, environment: Mapping[str, str], *, stream_output: bool) -> "ReadyRun":
        """Fork a run, which gets ready and then waits. Raises `ServerGone`."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                async with asyncio.timeout(_SECONDS_TO_ANSWER):
                    process = await self._connection.fork(Start(dict(environment), stream_output), theirs)
            except BaseException as error:
                ours.close()
                if isinstance(error, TimeoutError):
                    kill(self.pid)
                    raise ServerGone("it does not answer") from error
                raise
        return ReadyRun(process, ours)

    def retire(self) -> None:
        """Fork no more runs, and end when those that were forked have ended."""
        self._connection.retire()


@dataclass(frozen=True)
class ReadyRun:
    """The process of a run that waits to be let go."""

    process: Forked
    _gate: socket.socket

    def go(self) -> None:
        """Let it run."""
        with self._gate, suppress(OSError):
            self._gate.send(GO)

    def abandon(self) -> None:
        """Let it end, unless it runs."""
        self._gate.close()


class EngineServer:
    """A fork server that has imported Prefect in one directory and environment."""

    def __init__(self, process: asyncio.subprocess.Process, connection: _Connection, files: Signatures) -> None:
        self._process = process
        self._connection = connection
        self._files = files

    @classmethod
    async def begin(cls, directory: Path, environment: Mapping[str, str]) -> "EngineServer":
        """Start one and wait until it has imported Prefect. Raises `ServerGone`."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                get_sys_executable(),
                str(_MAIN),
                str(theirs.fileno()),
                str(directory),
                cwd=directory,
                env={**environment, NAME: BLANK},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # A Ctrl-C in a terminal is the worker's to handle.
                start_new_session=True,
            )
        connection = _Connection(ours)
        loaded = await _loaded(process.pid, connection)
        return cls(process, connection, loaded.files)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def outdated(self) -> str | None:
        """The file or folder that has changed since it was started, or why else it is of no use any more."""
        return changed(self._files) if self._connection.is_open else "its process"

    async def load(self, entrypoint: str) -> FlowServer:
        """Fork a server for an entrypoint, and wait until it has imported it. Raises `ServerGone`."""
        _, _, loaded = once = await self._fork(Load(entrypoint))
        if loaded.refusal is None:
            return FlowServer(*once)
        process, connection, _ = await self._fork(Load(entrypoint, loaded.modules))
        # What was found out holds until one of the files changes.
        return FlowServer(process, connection, loaded)

    async def _fork(self, message: Load) -> tuple[Forked, _Connection, Loaded]:
        ours, theirs = socket.socketpair()
        connection = _Connection(ours)
        with theirs:
            process = await self._connection.fork(message, theirs)
        return process, connection, await _loaded(process.pid, connection)

    def retire(self) -> None:
        """Fork no more servers, and end when those that were forked have ended."""
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


def kill(pid: int) -> None:
    """End a server that does not answer; its runs go on."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
