"""Real servers for the tests: started as processes on free ports of loopback, stopped with all they started."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

PROJECT = Path(__file__).resolve().parents[2]
SECONDS_TO_START = 90
LONGEST_PAUSE = 1.0


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path, cwd: Path = PROJECT) -> Iterator[psutil.Popen]:
    """A process of this interpreter's `command`, stopped at the end along with all its descendants."""
    with running_program([sys.executable, "-m", *command], environment, log, cwd) as process:
        yield process


@contextmanager
def running_program(
    command: list[str], environment: dict[str, str], log: Path, cwd: Path = PROJECT
) -> Iterator[psutil.Popen]:
    """A process of any program, stopped at the end along with all its descendants."""
    with log.open("ab") as output:
        process = psutil.Popen(
            command,
            env={**os.environ, **environment},
            cwd=cwd,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: psutil.Process, seconds: float = 8) -> None:
    """Terminate a process and its descendants, and kill what does not go."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.terminate()
        except psutil.NoSuchProcess:
            continue
    _, stubborn = psutil.wait_procs(family, timeout=seconds)
    for member in stubborn:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(stubborn, timeout=seconds)


def wait_for_http(url: str, process: psutil.Process, log: Path) -> None:
    """Wait until `url` answers 200; fail at once with the log's end when the process dies."""

    def answers() -> bool:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise AssertionError(f"the server died:\n{log.read_text()[-3000:]}")
        try:
            return client.get(url).status_code == 200
        except httpx.HTTPError:
            return False

    # Each client would read the machine's certificates anew, which takes longer than the request.
    with httpx.Client(timeout=2) as client:
        wait_until(answers, f"{url} to answer", SECONDS_TO_START)


def variables_of(process: psutil.Process) -> dict[str, str]:
    """The environment of a process; empty if it has just ended."""
    try:
        return process.environ()
    except psutil.NoSuchProcess:
        return {}


def wait_until(
    condition: Callable[[], bool], what: str, seconds: float = 60, every: float = 0.1, longest: float = LONGEST_PAUSE
) -> None:
    """Wait until `condition` holds; fail after `seconds`.

    The pauses begin with `every` and grow with the wait to a tenth of it, up to `longest`: looking costs the servers
    time that they could spend on what is waited for.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(max(every, min(waited / 10, longest)))
