"""`python -m tests.benchmarks`: every figure next to what it is compared with, measured in the same run."""

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median
from uuid import UUID

import httpx
from prefect.settings import PREFECT_API_URL, temporary_settings

from api.db.base import utc_now
from api.prefect.client import Prefect
from api.workflows.run_pages import NEWEST_FIRST
from api.workflows.run_queries import RunQuery, filters_for
from api.workflows.step_counts import NOT_SIMPLY_COMPLETED
from tests.benchmarks import finra_rows
from tests.benchmarks.seeding import copy_run
from tests.support.processes import free_port
from tests.support.stack import (
    ADMIN_KEY,
    DEMO,
    PrefectStack,
    api_process,
    prefect_environment,
    prefect_server,
    prefect_worker,
)

STORED_RUNS = 5_000
ROUNDS = 40

Action = Callable[[], Awaitable[object]]


async def alternate(ours: Action, direct: Action) -> tuple[float, float]:
    """Median milliseconds of both, taken in turns so that a busy moment hits both."""
    spent: tuple[list[float], list[float]] = ([], [])
    for round_number in range(ROUNDS + 3):
        for times, action in zip(spent, (ours, direct), strict=True):
            began = time.perf_counter()
            await action()
            if round_number >= 3:
                times.append((time.perf_counter() - began) * 1000)
    return median(spent[0]), median(spent[1])


def row(what: str, ours: float, compared: str, direct: float, unit: str, aim: str) -> None:
    """One line of the table."""
    print(
        f"| {what} | {ours:.1f} {unit} | {compared} | {direct:.1f} {unit} | {ours / direct:.2f} | {aim} |", flush=True
    )


async def list_directly(prefect: Prefect, limit: int) -> None:
    """The calls that a page of runs is made of, without Spine in between."""
    filters = filters_for(RunQuery(), utc_now())
    runs, _ = await asyncio.gather(
        prefect.list_runs(filters[0], NEWEST_FIRST, 0, limit + 1),
        asyncio.gather(*(prefect.count_runs(part) for part in filters)),
    )
    ids = [run.id for run in runs[:limit]]
    await asyncio.gather(
        prefect.flows_by_id(list({run.flow_id for run in runs})),
        prefect.count_task_runs(ids),
        prefect.task_runs(ids, NOT_SIMPLY_COMPLETED),
    )


async def read_directly(prefect: Prefect, run_id: str) -> None:
    """The calls that the detail of a run is made of."""
    run = await prefect.read_run(UUID(run_id))
    await asyncio.gather(prefect.task_runs([run.id]), prefect.child_runs([run.id]))
    await prefect.flows_by_id([run.flow_id])


async def measure_api(stack: PrefectStack, url: str, run_id: str) -> None:
    """The rows about the API."""
    deployment = UUID(stack.deployment("demo.typed", "demo.typed")["id"])
    params = {"day": "2025-12-15", "tier": "A"}
    headers = {"X-API-Key": ADMIN_KEY}
    async with (
        httpx.AsyncClient(base_url=f"{url}/api/v1/workflows", headers=headers, timeout=60) as client,
        Prefect.connect(9) as prefect,
    ):

        def create_directly() -> Awaitable[object]:
            key = os.urandom(9).hex()
            return prefect.create_run(deployment, parameters=params, tags=[], labels={}, idempotency_key=key)

        for limit in (20, 100):
            ours, direct = await alternate(
                partial(client.get, "/runs", params={"limit": limit}), partial(list_directly, prefect, limit)
            )
            row(f"list of {limit} at {STORED_RUNS:,} runs", ours, "the same calls", direct, "ms", "≤ 1.2")
        ours, direct = await alternate(partial(client.get, f"/runs/{run_id}"), partial(read_directly, prefect, run_id))
        row("detail of a run", ours, "the same calls", direct, "ms", "≤ 1.2")
        ours, direct = await alternate(
            partial(client.post, "/trigger/demo.typed", json={"params": params}), create_directly
        )
        row("trigger", ours, "create_flow_run_from_deployment", direct, "ms", "≤ 1.2")


def measure_finra() -> None:
    """The rows about the bundled workflow: all its steps, beside only reading the file with the library it uses."""
    for rows in (1_000_000, 4_000_000):
        found = finra_rows.measure(rows)
        ours = f"{found['seconds']:.1f} s, {found['peak_rss_mb']:.0f} MB peak"
        reading = f"{found['read_csv_seconds']:.1f} s, {found['read_csv_peak_rss_mb']:.0f} MB peak"
        ratio = found["seconds"] / found["read_csv_seconds"]
        aim = "seconds, bounded memory"
        print(f"| finra.weekly_refresh, {rows:,} rows | {ours} | polars.read_csv | {reading} | {ratio:.1f} | {aim} |")


def main() -> None:
    """Build a stack with many stored runs, measure, print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = prefect_environment(folder / "prefect", free_port())
        os.environ |= environment
        with prefect_server(environment, folder / "server.log"):
            stack = PrefectStack(environment["PREFECT_API_URL"], folder / "prefect", dict(os.environ))
            run_id = _one_real_run(stack, folder)
        copy_run(folder / "prefect" / "prefect.db", run_id, STORED_RUNS)
        print("| what | Spine | compared with | that | ratio | aim |\n|---|---|---|---|---|---|")
        with (
            prefect_server(environment, folder / "server.log"),
            api_process(stack.url, stack.home, folder / "api") as api,
            temporary_settings({PREFECT_API_URL: stack.url}),
        ):
            asyncio.run(measure_api(stack, api.url, run_id))
    measure_finra()


def _one_real_run(stack: PrefectStack, folder: Path) -> str:
    stack.post("/work_pools/", {"name": "spine", "type": "process"})
    stack.cli("deploy", "--all", "--no-prompt", "--prefect-file", str(DEMO / "prefect.yaml"))
    (folder / "unless").touch()
    with (
        prefect_worker(stack.environment, folder / "worker.log"),
        api_process(stack.url, stack.home, folder / "api") as api,
    ):
        run_id = api.trigger("demo.three_steps", marks=str(folder / "marks"), unless=str(folder / "unless"))
        api.wait_for(run_id, "COMPLETED")
    return run_id


if __name__ == "__main__":
    main()
