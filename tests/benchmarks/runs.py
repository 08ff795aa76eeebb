"""Runs of a flow of three steps that do nothing: how fast they begin and end, alone and many at once."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Aim, Figure, Row, at_most, middle
from tests.benchmarks.stacks import POLLING, SPINE, STOCK, Target, fresh_key
from tests.support.processes import wait_until
from tests.support.stack import FINAL

# Runs for which all processes have started and have imported what they import.
WARM_UP = 2
# What executes while others are triggered.
BUSY = 20
COMPLETED_WITHIN = {10: 3.0, 50: 15.0, 200: 60.0}
ACCEPTED_WITHIN = {10: 0.4, 50: 2.0, 200: 8.0}
_AT_ONCE = 60


@dataclass(frozen=True)
class Burst:
    """Triggers at once: their runs, the seconds until the last was accepted, and how many were refused at first."""

    began: float
    runs: Sequence[str]
    seconds: float
    refused: int

    @property
    def figures(self) -> tuple[Figure, ...]:
        """As a row has them."""
        return Figure(self.seconds, "s"), Figure(self.refused, "", "refused")


def warm_up(targets: Sequence[Target]) -> None:
    """Let each stack execute some runs that are not measured."""
    for target in targets:
        for _ in range(WARM_UP if target.name == SPINE else 1):
            one_run(target)


def measure_latency(bench: Bench, targets: Sequence[Target], engine: str) -> None:
    """Add the rows about a run alone: Spine's, beside that of each other stack, in turns."""
    spent: dict[str, list[tuple[float, float]]] = {target.name: [] for target in targets}
    most = {SPINE: bench.scale.runs}
    for number in range(bench.scale.runs):
        for target in targets:
            if number < most.get(target.name, bench.scale.stock_runs):
                spent[target.name].append(one_run(target))
    ours = spent.pop(SPINE)
    others: dict[str, list[tuple[float, float]]] = spent or {"": []}
    first_step = (at_most(0.20), at_most(0.35, "p95"))
    for place, what, aims in (
        (0, "trigger until the first step begins", first_step),
        (1, "trigger until three steps are completed", ()),
    ):
        for name, theirs in others.items():
            found = middle([one[place] for one in theirs], "s") if theirs else ()
            beside = ", beside a worker that polls each second" if name == POLLING else ""
            bench.add(Row(f"{what}{beside}", middle([one[place] for one in ours], "s"), name, found, aims, engine))


def measure_bursts(bench: Bench, spine: Target, engine: str) -> None:
    """Add the rows about many triggers at once, alone and while other runs execute."""
    for count in bench.scale.bursts:
        burst = trigger_at_once(spine, count)
        seconds = wait_for_all(spine, burst)
        bench.add(accepting(f"{count} triggers at once: all accepted", burst, engine))
        aims: tuple[Aim, ...] = (at_most(COMPLETED_WITHIN[count]),)
        bench.add(Row(f"{count} triggers at once: all completed", (Figure(seconds, "s"),), aims=aims, engine=engine))
    busy = trigger_at_once(spine, BUSY)
    burst = trigger_at_once(spine, bench.scale.bursts[0])
    row = accepting(f"{len(burst.runs)} triggers at once while {BUSY} runs execute: all accepted", burst, engine)
    for one in (busy, burst):
        wait_for_all(spine, one)
    bench.add(row)


def measure_paired_burst(bench: Bench, spine: Target, stock: Target, engine: str) -> None:
    """Add the row about as many triggers at once as Prefect's stock worker can execute in reasonable time."""
    count = bench.scale.paired_burst
    figures = []
    for target in (spine, stock):
        burst = trigger_at_once(target, count)
        figures.append((Figure(wait_for_all(target, burst), "s"), Figure(burst.refused, "", "refused")))
    bench.add(Row(f"{count} triggers at once: all completed", figures[0], STOCK, figures[1], engine=engine))


def accepting(what: str, burst: Burst, engine: str) -> Row:
    """A row about how fast triggers are accepted, and that none is refused."""
    aims = (at_most(ACCEPTED_WITHIN[len(burst.runs)]), at_most(0, "refused"))
    return Row(what, burst.figures, aims=aims, engine=engine)


def one_run(target: Target) -> tuple[float, float]:
    """Seconds from a trigger until the first step of its run began, and until the run was completed."""
    burst = trigger_at_once(target, 1)
    (run_id,) = burst.runs
    prefect = target.prefect
    found: list[dict[str, Any]] = []

    def has_ended() -> bool:
        found[:] = [prefect.get(f"/flow_runs/{run_id}")]
        return found[0]["state_type"] in FINAL

    wait_until(has_ended, "the run to end", 120, every=0.05, longest=0.05)
    assert found[0]["state_type"] == "COMPLETED", found[0]["state"]
    steps: list[dict[str, Any]] = []

    def all_are_recorded() -> bool:
        steps[:] = prefect.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        return len(steps) == 3 and all(step["start_time"] for step in steps)

    wait_until(all_are_recorded, "the steps to be recorded", 60, every=0.2)
    first = min(_seconds(step["start_time"]) for step in steps)
    return first - burst.began, _seconds(found[0]["end_time"]) - burst.began


def trigger_at_once(target: Target, count: int) -> Burst:
    """Start runs at once, each from a client of its own."""
    return asyncio.run(_trigger_at_once(target, count))


async def _trigger_at_once(target: Target, count: int) -> Burst:
    """Who is refused comes again under the same key, as clients do."""
    refused = 0

    async def trigger() -> str:
        nonlocal refused
        key, is_first = fresh_key(), True
        while True:
            try:
                answer = await target.send(client, key)
            except httpx.TransportError:
                wait = 1.0
            else:
                if answer.status_code not in (429, 503):
                    return target.run_id(answer)
                wait = float(answer.headers.get("Retry-After", 1))
            refused += is_first
            is_first = False
            await asyncio.sleep(wait)

    async with target.client(count) as client:
        began = time.time()
        runs = await asyncio.gather(*(trigger() for _ in range(count)))
        return Burst(began, runs, time.time() - began, refused)


def wait_for_all(target: Target, burst: Burst, seconds: float = 900) -> float:
    """Seconds from the first trigger until the last run was completed."""
    prefect = target.prefect
    chosen = {"id": {"any_": list(burst.runs)}}
    ended = {"flow_runs": {**chosen, "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}}}
    count = len(burst.runs)
    wait_until(lambda: prefect.post("/flow_runs/count", ended) == count, f"{count} runs to end", seconds, every=0.5)
    found = prefect.post("/flow_runs/filter", {"flow_runs": chosen, "limit": 200})
    assert {one["state_type"] for one in found} == {"COMPLETED"}
    return max(_seconds(one["end_time"]) for one in found) - burst.began


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
