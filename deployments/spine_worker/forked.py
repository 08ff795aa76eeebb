"""Processes that a fork server has forked, as the worker sees them, and runs that wait in them for their start."""

import asyncio
import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass

from spine_worker.forking.messages import BEGUN, GO

# How long a run may prepare itself after its start.
_SECONDS_TO_BEGIN = 60.0
# The status of a process whose end nothing has observed.
_UNKNOWN_STATUS = -signal.SIGKILL


class NotBegun(Exception):
    """The process of a run has ended before the run began."""


class ForkedProcess:
    """A process that a server has forked, in the form that Prefect's process handles expect."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    def set_ended(self, status: int) -> None:
        """Record how the process has ended; only the first status counts."""
        if self.returncode is None:
            self.returncode = status
            self._ended.set()

    async def wait(self) -> None:
        """Wait until the process has ended."""
        await self._ended.wait()


def observe_end(process: ForkedProcess) -> None:
    """Wait in the background for a process whose server is gone."""
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        process.set_ended(_UNKNOWN_STATUS)
        return

    def ended() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        process.set_ended(_UNKNOWN_STATUS)

    loop.add_reader(descriptor, ended)


@dataclass(frozen=True)
class ReadyRun:
    """The process of a run that waits for its start."""

    process: ForkedProcess
    _gate: socket.socket

    async def begin(self) -> None:
        """Start the run, and wait until it has begun. Raises `NotBegun`; its process has ended then."""
        with self._gate:
            self._gate.setblocking(False)
            with suppress(OSError):
                self._gate.send(GO)
            try:
                async with asyncio.timeout(_SECONDS_TO_BEGIN):
                    has_begun = await self._has_begun()
            except TimeoutError:
                kill(self.process.pid)
                # It may have begun at the last moment.
                has_begun = await self._has_begun()
        if not has_begun:
            await self.process.wait()
            raise NotBegun(f"its process ended with status {self.process.returncode} before the run had begun")

    async def _has_begun(self) -> bool:
        """Wait for the answer of the process, or for its end."""
        try:
            return await asyncio.get_running_loop().sock_recv(self._gate, len(BEGUN)) == BEGUN
        except OSError:
            return False

    def abandon(self) -> None:
        """End the process, unless the run has started."""
        self._gate.close()


def kill(pid: int) -> None:
    """Kill a server that does not answer; its runs continue."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
