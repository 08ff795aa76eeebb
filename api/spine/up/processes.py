"""The child processes of `spine up`: starting them, finding their descendants, and stopping all of them in order.

The order is flow runs and worker, then the API, then the server, so that Prefect can still record interrupted flow
runs. It is the same when `spine up` ends and when a start finds processes of an earlier one that was killed.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import IO

import psutil

from spine.up.command_line import BLANKS
from spine.up.console import last_words, lines_since
from spine.up.forks import ForkRequests, Process
from spine.up.home import forget_records, read_records, write_record
from spine.up.plan import MARKER, WorkerType
from spine.up.waiting import UpError, in_background

SERVER = "prefect-server"
WORKER = "worker"
API = "api"
DEPLOY = "deploy"
NURSERY = "nursery"
DATABASE = "database"
TITLES = {
    NURSERY: "The nursery",
    DATABASE: "The process for Spine's database",
    SERVER: "The Prefect server",
    WORKER: "The worker",
    API: "The API",
    DEPLOY: "prefect deploy",
}


@dataclass
class Child:
    """A process that was started, and where its output goes."""

    name: str
    process: Process
    log: Path
    log_offset: int

    def last_message(self) -> str:
        """How it ended, in one sentence; call it only after the end."""
        code = self.process.returncode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"{TITLES[self.name]} {how}: {last_words(lines_since(self.log, self.log_offset))} (log: {self.log})"


class Children:
    """The children of one start."""

    def __init__(self, home: Path, project: Path) -> None:
        self._home = home
        self._project = project
        self._watched: list[Child] = []
        self._forks: ForkRequests | None = None

    def start_nursery(self, environment: dict[str, str]) -> ForkRequests:
        """Start the process that forks all that are started later, which must be ready by then."""
        ours, theirs = socket.socketpair()
        with theirs:
            module = ["spine.up.nursery", BLANKS]
            self._nursery = self.launch(NURSERY, module, environment, [theirs.fileno()])
        self._watched.append(self._nursery)
        self._forks = ForkRequests(ours)
        return self._forks

    def end_nursery(self) -> None:
        """Let the nursery end, which is not needed when everything has been started."""
        if self._forks:
            self._watched.remove(self._nursery)
            self._forks.close(self._nursery.process)
            self._forks = None

    def start(
        self, name: str, module: list[str], environment: dict[str, str], descriptors: Sequence[int] = ()
    ) -> Child:
        """Run `python -m <module>` as the child `name` and watch it from now on."""
        child = self.launch(name, module, environment, descriptors)
        self._watched.append(child)
        return child

    def launch(
        self, name: str, module: list[str], environment: dict[str, str], descriptors: Sequence[int] = ()
    ) -> Child:
        """Run `python -m <module>` as the child `name`, which may end by itself; in a new interpreter without nursery.

        Only `prefect deploy` has the project's folder on its path of modules: a module of the project must not take
        the place of one that Spine or Prefect imports. The numbers of the descriptors come first in the arguments.
        """

        def start(output: IO[bytes]) -> Process:
            if self._forks:
                return self._forks.fork(module, environment, output, descriptors)
            given = [module[0], *map(str, descriptors), *module[1:]]
            return subprocess.Popen(  # noqa: S603 (our own interpreter and fixed arguments)
                [sys.executable, *([] if name == DEPLOY else ["-P"]), "-m", *given],
                cwd=self._project,
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A Ctrl-C in the terminal reaches only the parent, which then stops the children in order.
                start_new_session=True,
            )

        return self._child(name, start)

    def _child(self, name: str, start: Callable[[IO[bytes]], Process]) -> Child:
        log = self._home / "logs" / f"{name}.log"
        with log.open("ab") as output:
            offset = output.tell()
            process = start(output)
        write_record(self._home, name, process.pid, psutil.Process(process.pid).create_time())
        return Child(name, process, log, offset)

    def check(self) -> None:
        """Raise `UpError` when a watched child has died."""
        for child in self._watched:
            if child.process.poll() is not None:
                raise UpError(child.last_message())


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
    """Whether it still runs; a zombie does not."""
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
    """The value of an environment variable that the process was started with; None if it is missing or blank."""
    try:
        return process.environ().get(name, "").strip() or None
    except (psutil.Error, OSError):
        return None


def of_home(home: Path) -> list[psutil.Process]:
    """Every process that descends from a child of this home, even if its parents have ended."""
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [
        process
        for process in psutil.process_iter()
        if process.pid not in spared and variable(process, MARKER) == str(home) and alive(process)
    ]


def flow_runs(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The processes that lead a flow run: their parent is not part of the run."""
    return [process for process in processes if variable(process, FLOW_RUN_ID) and not _parent_in_run(process)]


def _parent_in_run(process: psutil.Process) -> bool:
    try:
        parent = process.parent()
    except psutil.Error:
        return False
    return parent is not None and variable(parent, FLOW_RUN_ID) is not None


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Signal each process that still runs."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def wait_gone(processes: Iterable[psutil.Process], deadline: float, hurry: Event) -> list[psutil.Process]:
    """Wait until all are gone, at most until `deadline` (monotonic); returns those that still run."""
    remaining = [process for process in processes if alive(process)]
    while remaining and time.monotonic() < deadline and not hurry.is_set():
        hurry.wait(0.05)
        remaining = [process for process in remaining if alive(process)]
    return remaining


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL the processes that still run, and wait until they are gone."""
    doomed = [process for process in processes if alive(process)]
    send(doomed, signal.SIGKILL)
    wait_gone(doomed, time.monotonic() + 1.0, Event())


# Seconds after the beginning of a stop at which the wait for each part ends. All together takes at most 10 s.
FLOW_RUNS_UNTIL = 3.0
WORKER_UNTIL = 4.0
RESCHEDULED_UNTIL = 5.5
REPORT_UNTIL = 6.2
API_UNTIL = 6.5
SERVER_UNTIL = 8.7


def running(home: Path) -> list[psutil.Process]:
    """Every running process of an earlier start of this home, with its descendants."""
    return with_descendants([*_recorded(home).values(), *of_home(home)])


def stop_all(home: Path, hurry: Event, report: Callable[[], object] | None = None) -> None:
    """Stop every process of the home; afterwards none is left.

    `report` is called between the end of the worker and that of the server: it reports interrupted runs to Prefect.
    When `hurry` is set, all processes are killed at once.
    """
    begun = time.monotonic()
    by_name = _recorded(home)
    server = with_descendants([by_name[SERVER]] if SERVER in by_name else [])
    api = with_descendants([by_name[API]] if API in by_name else [])
    # The nursery ends last: the others are its children.
    later = [*server, *api, by_name.get(NURSERY)]
    _stop_worker(by_name.get(WORKER), [one for one in running(home) if one not in later], begun, hurry)
    send(api, signal.SIGTERM)
    if report is not None and not hurry.is_set():
        wait([in_background(report)], timeout=max(0.0, begun + REPORT_UNTIL - time.monotonic()))
    kill(wait_gone(api, begun + API_UNTIL, hurry))
    send(server, signal.SIGTERM)
    kill(wait_gone(server, begun + SERVER_UNTIL, hurry))
    # Processes that were started during the stop, such as a flow run that the worker had just picked up.
    kill(running(home))
    forget_records(home)


def _stop_worker(worker: psutil.Process | None, others: list[psutil.Process], begun: float, hurry: Event) -> None:
    """Stop the worker, its flow runs, and everything else that is neither API nor server."""
    if worker is not None and _reschedules(worker):
        send([worker], signal.SIGTERM)
        wait_gone([worker], begun + RESCHEDULED_UNTIL, hurry)
    else:
        _crash_runs(worker, others, begun, hurry)
    kill(with_descendants(others))


def _reschedules(worker: psutil.Process) -> bool:
    """Whether the worker is of type `spine`, which stops its flow runs itself."""
    with suppress(psutil.Error):
        command = worker.cmdline()
        return ("--type", WorkerType.SPINE) in pairwise(command)
    return False


def _crash_runs(worker: psutil.Process | None, others: list[psutil.Process], begun: float, hurry: Event) -> None:
    """Stop a process worker, or the flow runs of a worker that has ended.

    The flow runs stop first, so that each reports itself as crashed. Meanwhile the worker is paused: it would take
    new runs, and a worker that stops signals its flow runs a second time, which interrupts their report. The
    subprocesses of a run are stopped by the run: a step whose tool is stopped first would report that the tool failed.
    """
    workers = [worker] if worker else []
    leaders = flow_runs(others)
    send(workers, signal.SIGSTOP)
    send(leaders, signal.SIGTERM)
    wait_gone(leaders, begun + FLOW_RUNS_UNTIL, hurry)
    send(workers, signal.SIGTERM)
    send(workers, signal.SIGCONT)
    # Without runs the worker has nothing left to report, but its event stream can keep it for seconds.
    wait_gone(workers, min(begun + WORKER_UNTIL, time.monotonic() + 1.0), hurry)


def _recorded(home: Path) -> dict[str, psutil.Process]:
    found = {name: find(pid, created) for name, (pid, created) in read_records(home).items()}
    return {name: process for name, process in found.items() if process is not None}
