"""Finding processes, signalling them, and waiting for them to be gone."""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Event

import psutil

from spine.up.environment import MARKER

FLOW_RUN_ID = "PREFECT__FLOW_RUN_ID"


def find(pid: int, create_time: float) -> psutil.Process | None:
    """The process with this pid, if it is the one that was created then and not a later one with a re-used pid."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        # The creation time is counted from the boot time, which the kernel may adjust by fractions of a second.
        if abs(process.create_time() - create_time) < 1.0:
            return process
    return None


def alive(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie does not, whoever has yet to reap it."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def with_descendants(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The roots and everything below them."""
    found: list[psutil.Process] = []
    for root in roots:
        found.append(root)
        with suppress(psutil.Error):
            found += root.children(recursive=True)
    return list(dict.fromkeys(found))


def variable(process: psutil.Process, name: str) -> str | None:
    """The value of an environment variable that the process was started with; None without, and where it is blank."""
    try:
        return process.environ().get(name, "").strip() or None
    except (psutil.Error, OSError):
        return None


def of_home(home: Path) -> list[psutil.Process]:
    """Every process that descends from a child of this home, also when its parents are long dead."""
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [
        process
        for process in psutil.process_iter()
        if process.pid not in spared and variable(process, MARKER) == str(home) and alive(process)
    ]


def flow_runs(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Of these, the processes that lead a flow run: their parent is not part of the run."""
    return [process for process in processes if variable(process, FLOW_RUN_ID) and not _parent_in_run(process)]


def _parent_in_run(process: psutil.Process) -> bool:
    try:
        parent = process.parent()
    except psutil.Error:
        return False
    return parent is not None and variable(parent, FLOW_RUN_ID) is not None


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Signal each process that is still there."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def wait_gone(processes: Iterable[psutil.Process], deadline: float, hurry: Event) -> list[psutil.Process]:
    """Wait until all are gone, at most until `deadline` (monotonic); returns those that are still there."""
    remaining = [process for process in processes if alive(process)]
    while remaining and time.monotonic() < deadline and not hurry.is_set():
        hurry.wait(0.05)
        remaining = [process for process in remaining if alive(process)]
    return remaining


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL what is still there, and wait the moment that takes."""
    doomed = [process for process in processes if alive(process)]
    send(doomed, signal.SIGKILL)
    wait_gone(doomed, time.monotonic() + 1.0, Event())
