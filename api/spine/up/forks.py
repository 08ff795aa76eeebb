"""The processes that the nursery forks, as `spine up` sees them."""

import ctypes
import json
import os
import select
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import IO, Protocol

from spine.up.waiting import UpError

_SECONDS_TO_ANSWER = 30.0
_PR_SET_CHILD_SUBREAPER = 36


class Process(Protocol):
    """What `spine up` needs to know of a process that it has started."""

    @property
    def pid(self) -> int:
        """Its number."""

    @property
    def returncode(self) -> int | None:
        """The exit code that `poll` has found, negative after a signal."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""

    def wait(self) -> int:
        """Wait for its end; the exit code."""


class Forked:
    """A process that the nursery has forked. When the nursery has ended, it is a child of this process."""

    def __init__(self, pid: int, ends: Callable[[], Mapping[int, int]]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ends = ends

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        if self.returncode is None:
            self.returncode = self._ends().get(self.pid)
        if self.returncode is None:
            # While the nursery is its parent, this is the error that there is no such child.
            with suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        while (status := self.poll()) is None:
            time.sleep(0.01)
        return status


class ForkRequests:
    """The connection to the nursery, which answers with the number of each process, and later with its exit code."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""
        self._started: list[int] = []
        self._ended: dict[int, int] = {}
        self._is_ready = False

    def is_ready(self) -> bool:
        """Whether the nursery has imported everything."""
        self._receive(0)
        self._is_ready = self._is_ready or bool(self._started)
        self._started.clear()
        return self._is_ready

    def fork(
        self, module: list[str], environment: Mapping[str, str], output: IO[bytes], descriptors: Iterable[int] = ()
    ) -> Forked:
        """Start `python -m <module>`, whose arguments begin with the numbers of the descriptors. Raises `UpError`."""
        with tempfile.TemporaryFile() as file:
            request = {"module": module[0], "arguments": module[1:], "environment": dict(environment)}
            file.write(json.dumps(request).encode())
            file.flush()
            try:
                socket.send_fds(self._connection, [b"!"], [file.fileno(), output.fileno(), *descriptors])
            except OSError:
                raise UpError(f"{module[0]} could not be started: the nursery has ended.") from None
            self._receive(_SECONDS_TO_ANSWER)
        if not self._started:
            raise UpError(f"{module[0]} could not be started: the nursery does not answer.")
        return Forked(self._started.pop(), self._ends)

    def close(self, nursery: Process) -> None:
        """Let the nursery end: what it alone has in memory is free then. Its children become those of this process."""
        self._receive(0)
        adopt_orphans(True)
        self._connection.shutdown(socket.SHUT_WR)
        # Until it has ended.
        while select.select([self._connection], [], [], _SECONDS_TO_ANSWER)[0] and self._read():
            pass
        nursery.wait()
        adopt_orphans(False)

    def _ends(self) -> Mapping[int, int]:
        self._receive(0)
        return self._ended

    def _receive(self, seconds: float) -> None:
        """Read what has arrived, and wait so long for the start of a process."""
        while select.select([self._connection], [], [], seconds)[0] and self._read():
            seconds = 0 if self._started else seconds

    def _read(self) -> bool:
        """Read once; False when the nursery has ended."""
        try:
            received = self._connection.recv(4096)
        except ConnectionError:
            received = b""
        *lines, self._received = (self._received + received).split(b"\n")
        for pid, status in map(json.loads, lines):
            if status is None:
                self._started.append(pid)
            else:
                self._ended[pid] = status
        return bool(received)


def adopt_orphans(adopt: bool) -> None:
    """Whether processes whose parents end become children of this process, in place of those of the system."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt))
