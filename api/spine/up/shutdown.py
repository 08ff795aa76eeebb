"""Stopping everything of a home in order, within a deadline.

The order lets Prefect still hear of an interrupted flow run: flow runs and worker, then the API, then the server.
It serves both a start that ends and a start that finds what a killed one left behind.
"""

import signal
import time
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from threading import Event

import psutil

from spine.up.children import API, SERVER, WORKER
from spine.up.home import forget_records, read_records
from spine.up.plan import WorkerType
from spine.up.processes import find, flow_runs, kill, of_home, send, wait_gone, with_descendants
from spine.up.waiting import in_background

# Seconds after the start of a stop at which the patience with each part ends; the promise is 10 s in all.
FLOW_RUNS_UNTIL = 3.0
WORKER_UNTIL = 4.0
HANDED_BACK_UNTIL = 5.5
REPORT_UNTIL = 6.2
API_UNTIL = 6.5
SERVER_UNTIL = 8.7


def running(home: Path) -> list[psutil.Process]:
    """Every living process that a start of this home has left, with all that descends from them."""
    return with_descendants([*_recorded(home).values(), *of_home(home)])


def stop_all(home: Path, hurry: Event, report: Callable[[], object] | None = None) -> None:
    """Stop every process of the home; afterwards none is left.

    `report` runs between the worker's end and the server's: the moment to tell Prefect about runs that could not
    do so themselves. When `hurry` is set all are killed at once.
    """
    begun = time.monotonic()
    by_name = _recorded(home)
    server = with_descendants([by_name[SERVER]] if SERVER in by_name else [])
    api = with_descendants([by_name[API]] if API in by_name else [])
    others = [process for process in running(home) if process not in server and process not in api]
    _stop_worker(by_name.get(WORKER), others, begun, hurry)
    send(api, signal.SIGTERM)
    if report is not None and not hurry.is_set():
        wait([in_background(report)], timeout=max(0.0, begun + REPORT_UNTIL - time.monotonic()))
    kill(wait_gone(api, begun + API_UNTIL, hurry))
    send(server, signal.SIGTERM)
    kill(wait_gone(server, begun + SERVER_UNTIL, hurry))
    # What was started while we were stopping, such as a flow run that the worker had just picked up.
    kill(running(home))
    forget_records(home)


def _stop_worker(worker: psutil.Process | None, others: list[psutil.Process], begun: float, hurry: Event) -> None:
    """Stop the worker and its flow runs, and whatever is neither API nor server."""
    if worker is not None and _hands_back(worker):
        send([worker], signal.SIGTERM)
        wait_gone([worker], begun + HANDED_BACK_UNTIL, hurry)
    else:
        _let_runs_crash(worker, others, begun, hurry)
    kill(with_descendants(others))


def _hands_back(worker: psutil.Process) -> bool:
    """Whether the worker is of our type, which sees to its flow runs itself."""
    with suppress(psutil.Error):
        command = worker.cmdline()
        return ("--type", WorkerType.SPINE) in pairwise(command)
    return False


def _let_runs_crash(worker: psutil.Process | None, others: list[psutil.Process], begun: float, hurry: Event) -> None:
    """Stop a process worker, or what a dead worker has left.

    The flow runs go first, so that each reports itself as crashed. Meanwhile the worker is held still: it would take
    new runs, and a worker that is told to stop signals its flow runs a second time, which cuts their report short.
    The subprocesses of a run are left to it at first: a step whose tool is stopped under it would report a failure
    of the tool.
    """
    workers = [worker] if worker else []
    leaders = flow_runs(others)
    send(workers, signal.SIGSTOP)
    send(leaders, signal.SIGTERM)
    wait_gone(leaders, begun + FLOW_RUNS_UNTIL, hurry)
    send(workers, signal.SIGTERM)
    send(workers, signal.SIGCONT)
    # Without runs the worker has nothing left to report; it may linger for seconds over its event stream.
    wait_gone(workers, min(begun + WORKER_UNTIL, time.monotonic() + 1.0), hurry)


def _recorded(home: Path) -> dict[str, psutil.Process]:
    found = {name: find(pid, created) for name, (pid, created) in read_records(home).items()}
    return {name: process for name, process in found.items() if process is not None}
