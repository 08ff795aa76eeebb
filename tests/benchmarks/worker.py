"""From a trigger to the first step, and to the end, of a flow of three steps that do nothing: both types of worker."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from uuid import uuid4

import httpx
import psutil

from tests.benchmarks.table import line
from tests.support.prefect_processes import prefect_worker
from tests.support.processes import wait_until
from tests.support.stack import FINAL, Api, PrefectStack

ROUNDS = 20
AT_ONCE = 50
MANY_AT_ONCE = 200
IN_A_ROW = 1_000
# Prefect's default, and what `spine up` sets.
WORKERS = {"spine": ("spine", "10"), "process": ("process", "10"), "process, polling each second": ("process", "1")}
FLOW = """
from prefect import flow, task


@task
def step(number: int) -> int:
    return number + 1


@flow(name="NAME")
def three_steps() -> int:
    return step(step(step(0)))
"""


def measure(stack: PrefectStack, api: Api, folder: Path, server: psutil.Popen) -> None:
    """Print the rows: medians and 95th percentiles of runs taken in turns, then many at once."""
    with _workers(stack, folder) as processes:
        workers = {f"worker, {name}": one for name, one in processes.items()}
        idle = {"Prefect's server": server, "the API": api.process, **workers}
        told = ", ".join(f"{name} {_memory(one):.0f} MB" for name, one in idle.items())
        line("idle memory (PSS)", told)
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in WORKERS}
        for _ in range(ROUNDS + 1):
            for name, times in spent.items():
                times.append(_one(stack, api, name))
        for number, what in enumerate(("first step begins", "run is completed")):
            seconds = {name: [one[number] for one in times[1:]] for name, times in spent.items()}
            _row(f"trigger until the {what}", seconds, aim="≥ 10 times")
        last = {name: [_many(stack, api, name, AT_ONCE)] for name in WORKERS}
        _row(f"{AT_ONCE} triggers at once until the last is completed", last)
        line(f"{MANY_AT_ONCE} triggers at once, spine", f"{_many(stack, api, 'spine', MANY_AT_ONCE):.1f} s")
        _one_after_the_other(stack, api, processes["spine"])


@contextmanager
def _workers(stack: PrefectStack, folder: Path) -> Iterator[dict[str, psutil.Popen]]:
    project = folder / "bench"
    project.mkdir()
    for name in WORKERS:
        (project / f"{_slug(name)}.py").write_text(FLOW.replace("NAME", _slug(name)))
    deployments = "".join(
        f"  - {{name: {_slug(name)}, entrypoint: {_slug(name)}.py:three_steps, work_pool: {{name: {_slug(name)}}}}}\n"
        for name in WORKERS
    )
    (project / "prefect.yaml").write_text(f"name: bench\ndeployments:\n{deployments}")
    for name, (kind, _) in WORKERS.items():
        stack.post("/work_pools/", {"name": _slug(name), "type": kind})
    stack.cli("deploy", "--all", "--no-prompt", cwd=project)
    with ExitStack() as cleanup:
        processes = {}
        for name, (kind, seconds) in WORKERS.items():
            environment = {**stack.environment, "PREFECT_WORKER_QUERY_SECONDS": seconds}
            log = folder / f"{_slug(name)}.log"
            processes[name] = cleanup.enter_context(prefect_worker(environment, log, _slug(name), kind))
        # Until all have started and imported what they import.
        time.sleep(20)
        yield processes


def _slug(name: str) -> str:
    return "bench." + name.replace(", polling each ", "-")


def _completed(stack: PrefectStack, api: Api, name: str) -> str:
    run_id = api.trigger(_slug(name))
    wait_until(lambda: _state(stack, run_id) in FINAL, "the run to end", 120, every=0.05)
    assert _state(stack, run_id) == "COMPLETED"
    return run_id


def _one(stack: PrefectStack, api: Api, name: str) -> tuple[float, float]:
    """Seconds from a trigger until its first step began and until it was completed."""
    began = time.time()
    run_id = _completed(stack, api, name)
    steps: list[Any] = []

    def all_are_recorded() -> bool:
        steps[:] = stack.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        return len(steps) == 3 and all(step["start_time"] for step in steps)

    wait_until(all_are_recorded, "the steps to be recorded", 60, every=0.2)
    ended = stack.get(f"/flow_runs/{run_id}")["end_time"]
    return _time(min(step["start_time"] for step in steps)) - began, _time(ended) - began


def _one_after_the_other(stack: PrefectStack, api: Api, worker: psutil.Popen) -> None:
    """What many runs leave behind in the worker and its warm interpreters."""
    family = [psutil.Process(worker.pid), *worker.children(recursive=True)]

    def held() -> str:
        megabytes = "+".join(f"{one.memory_full_info().uss / 1e6:.0f}" for one in family)
        return f"{megabytes} MB, {'+'.join(str(one.num_fds()) for one in family)} files"

    before = held()
    for _ in range(IN_A_ROW):
        _completed(stack, api, "spine")
    line(f"{IN_A_ROW} runs in a row: worker + interpreters before and after", f"{before}; {held()}")


def _many(stack: PrefectStack, api: Api, name: str, count: int) -> float:
    """Seconds from many triggers until the last of their runs was completed."""
    began = time.time()
    runs = asyncio.run(_trigger_many(api, name, count))
    left = list(runs)

    def all_have_ended() -> bool:
        while left and _state(stack, left[-1]) in FINAL:
            left.pop()
        return not left

    wait_until(all_have_ended, "the runs to end", 900, every=1)
    found = [stack.get(f"/flow_runs/{one}") for one in runs]
    assert {one["state_type"] for one in found} == {"COMPLETED"}
    return max(_time(one["end_time"]) for one in found) - began


async def _trigger_many(api: Api, name: str, count: int) -> list[str]:
    """Trigger at once. Who is told to come again does, under the same key, as it would after any 503."""
    headers = dict(api.client.headers)

    async def trigger(number: int) -> str:
        key = {"Idempotency-Key": f"{batch}-{number}"}
        while True:
            try:
                answer = await client.post(f"/workflows/trigger/{_slug(name)}", json={"params": {}}, headers=key)
            except httpx.TransportError:
                # The server closes a connection that has waited for some seconds.
                continue
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return str(answer.raise_for_status().json()["run_id"])
            await asyncio.sleep(float(answer.headers["Retry-After"]))

    batch = uuid4().hex
    # As many connections as there are clients.
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=api.client.base_url, headers=headers, timeout=120, limits=limits) as client:
        return await asyncio.gather(*(trigger(number) for number in range(count)))


def _state(stack: PrefectStack, run_id: str) -> str:
    return str(stack.get(f"/flow_runs/{run_id}")["state_type"])


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _memory(worker: psutil.Process) -> float:
    """Megabytes of a worker and all its processes, what they share counted once."""
    processes = [psutil.Process(worker.pid), *worker.children(recursive=True)]
    return sum(process.memory_full_info().pss for process in processes) / 1e6


def _row(what: str, seconds: dict[str, list[float]], aim: str = "") -> None:
    ours = seconds.pop("spine")
    for name, others in seconds.items():
        ratio = median(others) / median(ours)
        line(what, _told(ours), name, _told(others), f"{ratio:.1f} times", aim)


def _told(seconds: list[float]) -> str:
    if len(seconds) == 1:
        return f"{seconds[0]:.1f} s"
    return f"{median(seconds):.2f} s, p95 {quantiles(seconds, n=20)[-1]:.2f} s"
