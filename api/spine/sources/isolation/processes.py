"""Start tasks in processes of their own, and get their replies."""

import atexit
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory
from spine.sources.isolation.fork_server import LONGEST_MESSAGE, serve
from spine.sources.isolation.memory import too_much_memory
from spine.sources.isolation.task import Task

# A task checks the deadline itself, and reports more about it; one that cannot is killed after this time.
SECONDS_AFTER_DEADLINE = 0.4
_SECONDS_BETWEEN_CHECKS = 0.1
_LONGEST_REPLY = 1 << 22
# Arrow's own allocator takes a gigabyte at once, which would count as used.
_ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from spine.sources.isolation.fork_server import main; import spine.sources.parsers; main(int(sys.argv[1]))"
)


class TaskProcess:
    """One task in a process of its own. Always call `close` at the end; it kills the process if it still runs."""

    def __init__(self, task: Task, limits: Limits, memory_bytes: int, modules: Sequence[str] = ()) -> None:
        """Start a task. `modules` are what it imports; later tasks share them. Raises `FetchFailure`."""
        self._limits = limits
        self._memory_bytes = memory_bytes
        ours, theirs = socket.socketpair()
        with theirs:
            self._connection = Connection(ours.detach())
            try:
                self._server, self._pid = _start(theirs, memory_bytes, modules)
            except BaseException:
                self._connection.close()
                raise
        self._end: dict[str, Any] | None = None
        with suppress(OSError):
            self._connection.send_bytes(pickle.dumps(task))

    def request(self, message: Any) -> Any:
        """Send a request to the task, and wait for its reply. Raises `FetchFailure`."""
        # If the process has ended, its last message says why.
        with suppress(OSError):
            self._connection.send_bytes(json.dumps(message).encode())
        return self._receive()["reply"]

    def wait(self) -> None:
        """Wait until the task has ended. Raises `FetchFailure`."""
        self._receive()

    @property
    def peak_bytes(self) -> int | None:
        """The most memory that the process had, once it is closed; this counts what it shares with others, too."""
        return self._end["peak_kilobytes"] * 1024 if self._end else None

    @property
    def cpu_seconds(self) -> float | None:
        """The processor time that the process took, once it is closed."""
        return self._end["cpu_seconds"] if self._end else None

    def close(self) -> None:
        """End the process; safe to repeat."""
        if self._end is None:
            self._end = self._server.end(self._pid)
            self._connection.close()

    def _receive(self) -> dict[str, Any]:
        """The next message of the task: a reply, or its end. Raises `FetchFailure`."""
        while not self._connection.poll(min(max(self._limits.left(), 0), _SECONDS_BETWEEN_CHECKS)):
            if self._limits.left() < -SECONDS_AFTER_DEADLINE:
                self.close()
                self._limits.check_time(ErrorCategory.SOURCE)
        try:
            message: dict[str, Any] = json.loads(self._connection.recv_bytes(_LONGEST_REPLY))
        except (EOFError, OSError):
            self.close()
            raise self._crash() from None
        if "failure" in message:
            category, sentence, transient = message["failure"]
            raise FetchFailure(ErrorCategory(category), sentence, transient=transient)
        if "out_of_memory" in message:
            raise too_much_memory(self._memory_bytes)
        if "error" in message:
            raise FetchFailure(ErrorCategory.INTERNAL, f"Internal error: {message['error']}.")
        return message

    def _crash(self) -> FetchFailure:
        status = self._end["status"] if self._end else 0
        if status == -signal.SIGKILL:
            sentence = "The process that read the source was killed; the machine may be short of memory."
            return FetchFailure(ErrorCategory.SOURCE, sentence, transient=True)
        sentence = f"The process that read the source has crashed (status {status}); its content may be damaged."
        return FetchFailure(ErrorCategory.SOURCE, sentence)


class _ForkServer:
    """The fork server of this process."""

    def __init__(self, control: socket.socket, process: subprocess.Popen[bytes] | int) -> None:
        self.owner = os.getpid()
        self._control = control
        self._process = process
        self._lock = threading.Lock()

    def start(self, connection: socket.socket, memory_bytes: int, modules: Sequence[str]) -> int:
        """Fork a process that serves the connection, and return its id. Raises `OSError` if the server is gone."""
        request = json.dumps({"memory_bytes": memory_bytes, "modules": modules}).encode()
        with self._lock:
            socket.send_fds(self._control, [request], [connection.fileno()])
            reply = self._reply()
        if "error" in reply:
            sentence = f"A process to read the source cannot be started: {reply['error']}."
            raise FetchFailure(ErrorCategory.INTERNAL, sentence, transient=True)
        return int(reply["pid"])

    def end(self, pid: int) -> dict[str, Any]:
        """Kill a process and return how it ended."""
        try:
            with self._lock:
                self._control.send(json.dumps({"pid": pid}).encode())
                return self._reply()
        except OSError:
            # Its processes have ended with the server.
            return {"status": -signal.SIGKILL, "peak_kilobytes": 0, "cpu_seconds": 0.0}

    def stop(self) -> None:
        """End the server, and wait for its end if it is a child of this process."""
        self._control.close()
        if self.owner == os.getpid():
            if isinstance(self._process, int):
                with suppress(ChildProcessError):
                    os.waitpid(self._process, 0)
            else:
                self._process.wait()

    def _reply(self) -> dict[str, Any]:
        data = self._control.recv(LONGEST_MESSAGE)
        if not data:
            raise ConnectionResetError
        reply: dict[str, Any] = json.loads(data)
        return reply


_server: _ForkServer | None = None
_lock = threading.Lock()


def fork_ahead() -> None:
    """Fork the fork server from this process, which must have one thread only, instead of starting it when needed.

    The fork server then has the modules that this process has imported.
    """
    global _server
    stop()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if (pid := os.fork()) == 0:
        _serve_only(theirs)
    theirs.close()
    _server = _ForkServer(ours, pid)


def _serve_only(control: socket.socket) -> NoReturn:
    """Serve in a forked process, which gives up all other files of its parent."""
    try:
        _close_files_except({0, 1, 2, control.fileno()})
        serve(control)
    finally:
        os._exit(1)


def _close_files_except(kept: Iterable[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with suppress(OSError):
                os.close(int(name))


@atexit.register
def stop() -> None:
    """End the fork server of this process and all its processes; the next task starts another one."""
    global _server
    with _lock:
        server, _server = _server, None
    if server is not None:
        server.stop()


def _start(connection: socket.socket, memory_bytes: int, modules: Sequence[str]) -> tuple[_ForkServer, int]:
    """Start a process that serves the connection; also start the fork server if there is none."""
    global _server
    for attempt in (1, 2):
        with _lock:
            # A forked process must not use the server of its parent.
            if _server is None or _server.owner != os.getpid():
                _server = _spawned()
            server = _server
        try:
            return server, server.start(connection, memory_bytes, modules)
        except OSError as error:
            with _lock:
                if _server is server:
                    _server = None
            server.stop()
            if attempt == 2:
                raise _no_process(error) from None
    raise AssertionError


def _spawned() -> _ForkServer:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = json.dumps([str(Path(entry).absolute()) for entry in sys.path])
    command = [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno()), path]
    with theirs:
        try:
            process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_ENVIRONMENT},
                pass_fds=[theirs.fileno()],
            )
        except OSError as error:
            ours.close()
            raise _no_process(error) from None
    return _ForkServer(ours, process)


def _no_process(error: OSError) -> FetchFailure:
    reason = os.strerror(error.errno) if error.errno else "it ends at once"
    sentence = f"A process to read the source cannot be started: {reason}."
    return FetchFailure(ErrorCategory.INTERNAL, sentence, transient=True)
