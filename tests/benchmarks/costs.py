"""What a run costs, and what an idle stack holds: requests, processor time and memory, for each process."""

import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Figure, Row, at_most
from tests.benchmarks.runs import Burst, one_run, trigger_at_once, wait_for_all
from tests.benchmarks.stacks import SPINE, Target
from tests.support.processes import wait_until

# A line of the access log; a WebSocket is one request. Only the benchmark itself counts runs.
_REQUEST = re.compile(
    r'"(?:GET|POST|PUT|PATCH|DELETE) (?!/api/flow_runs/count)\S+ HTTP/1\.1"|"WebSocket \S+" \[accepted\]'
)
# Seconds between two triggers, in which neither worker gets behind.
_PAUSE = {SPINE: 1.0}
_STOCK_PAUSE = 3.0
_SETTLED = 3.0


@dataclass(frozen=True)
class Spent:
    """Requests to Prefect's server and processor seconds by process, since a stack was started."""

    time: float
    requests: int
    seconds: Mapping[str, float]

    def minus(self, before: "Spent") -> "Spent":
        """What was spent since then."""
        seconds = {name: value - before.seconds.get(name, 0.0) for name, value in self.seconds.items()}
        return Spent(self.time - before.time, self.requests - before.requests, seconds)

    def per_run(self, idle: "Spent", runs: int) -> tuple[float, dict[str, float]]:
        """Requests and seconds of one run, without what the stack does when nothing runs."""
        share = self.time / idle.time
        seconds = {name: (value - idle.seconds[name] * share) / runs for name, value in self.seconds.items()}
        return (self.requests - idle.requests * share) / runs, seconds


def spent(target: Target) -> Spent:
    """What a stack has spent until now. The runs are those whose processes have ended below the worker."""
    seconds = defaultdict[str, float](float)
    for name, root in target.roots.items():
        family = _family(root) if name == "worker" else [root]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds[name] += times.user + times.system
                if name == "worker":
                    seconds["run"] += times.children_user + times.children_system
    requests = requests_in(target.server_log.read_text(errors="replace"))
    return Spent(time.monotonic(), requests, seconds)


def requests_in(log: str) -> int:
    """How many requests an access log of Prefect's server has."""
    return len(_REQUEST.findall(log))


def measure_costs(bench: Bench, targets: Sequence[Target], engine: str) -> None:
    """Add the rows about requests and processor seconds of a run, Spine's beside the stock stack's."""
    counts = {SPINE: bench.scale.counted_runs}
    found = [_cost(bench, one, counts.get(one.name, bench.scale.counted_stock_runs)) for one in targets]
    ours, theirs = found
    name = targets[1].name
    requests, their_requests = (Figure(one[0], "requests") for one in found)
    bench.add(
        Row("requests to Prefect's server for a run", (requests,), name, (their_requests,), (at_most(20),), engine)
    )
    what = "processor seconds of a run"
    bench.add(Row(what, _shares(ours[1]), name, _shares(theirs[1]), (at_most(0.35),), engine))


def measure_memory(bench: Bench, targets: Sequence[Target], engine: str) -> None:
    """Add the row about the memory of idle stacks, what processes share counted once."""
    time.sleep(bench.scale.idle_seconds)
    ours, theirs = (_memory(target) for target in targets)
    aims = (at_most(600),)
    bench.add(Row("idle memory (PSS)", ours, targets[1].name, theirs, aims, engine))


def measure_runs_in_a_row(bench: Bench, spine: Target, engine: str) -> None:
    """Add the row about what many runs leave behind in the worker and its warm interpreters."""
    before = _held(spine)
    for _ in range(bench.scale.runs_in_a_row):
        one_run(spine)
    after = _held(spine)
    grown = [Figure(new.value - old.value, new.unit, new.name) for old, new in zip(before, after, strict=True)]
    what = f"growth of the worker with its interpreters over {bench.scale.runs_in_a_row} runs in a row"
    figures = (*grown, Figure(before[0].value, "MB", "before"))
    bench.add(Row(what, figures, aims=(at_most(5), at_most(2, "files")), engine=engine))


def _cost(bench: Bench, target: Target, runs: int) -> tuple[float, dict[str, float]]:
    """Requests and seconds by process of one run, from runs that follow each other at some distance."""
    before = spent(target)
    time.sleep(bench.scale.idle_seconds)
    idle = spent(target).minus(before)
    processes = len(_family(target.roots["worker"]))
    before = spent(target)
    started = list[str]()
    for _ in range(runs):
        started += trigger_at_once(target, 1).runs
        time.sleep(_PAUSE.get(target.name, _STOCK_PAUSE))
    time.sleep(_SETTLED)
    wait_for_all(target, Burst(time.time(), started, 0, 0))
    wait_until(lambda: len(_family(target.roots["worker"])) <= processes, "the processes of runs to end", 60)
    found = spent(target).minus(before)
    # One request was that of `wait_for_all` for the runs.
    return Spent(found.time, found.requests - 1, found.seconds).per_run(idle, runs)


def _shares(seconds: Mapping[str, float]) -> tuple[Figure, ...]:
    shares = [Figure(value, "s", name) for name, value in seconds.items() if name != "spine up"]
    return Figure(sum(seconds.values()), "s"), *shares


def _memory(target: Target) -> tuple[Figure, ...]:
    found = defaultdict[str, float](float)
    for name, root in target.roots.items():
        family = _family(root) if name == "worker" else [root]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                role = name if process.pid == root.pid else "interpreters"
                found[role] += process.memory_full_info().pss / 1e6
    return Figure(sum(found.values()), "MB"), *(Figure(value, "MB", name) for name, value in found.items())


def _held(target: Target) -> tuple[Figure, ...]:
    """Unshared memory and open files of the worker and its interpreters."""
    family = _family(target.roots["worker"])
    memory = sum(process.memory_full_info().uss for process in family) / 1e6
    return Figure(memory, "MB"), Figure(sum(process.num_fds() for process in family), "", "files")


def _family(root: psutil.Process) -> list[psutil.Process]:
    return [psutil.Process(root.pid), *root.children(recursive=True)]
