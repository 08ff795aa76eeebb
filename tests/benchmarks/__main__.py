"""`python -m tests.benchmarks`: every figure next to what it is compared with, measured in the same run."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from uuid import UUID

import httpx
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.prefect.client import Prefect
from spine.tables.base import utc_now
from spine.workflows.run_list import RunQuery, filters_for
from spine.workflows.run_pages import BY_START
from spine.workflows.steps import NOT_SIMPLY_COMPLETED

from tests.benchmarks import alerts, finra_rows, schedules, sources, worker
from tests.benchmarks.seeding import copy_run
from tests.benchmarks.table import line, print_header, write_to_readme
from tests.benchmarks.timing import alternate, row
from tests.support.postgres import fresh_database, postgresql_server
from tests.support.prefect_database import prefect_database
from tests.support.prefect_processes import prefect_environment, prefect_server, prefect_worker
from tests.support.processes import free_port
from tests.support.stack import ADMIN_KEY, DEMO, FOLLOWING, PrefectStack, api_process

STORED_RUNS = 5_000


async def list_directly(prefect: Prefect, limit: int) -> None:
    """The calls that a page of runs is made of, without Spine in between."""
    filters = filters_for(RunQuery(), utc_now())
    runs, _ = await asyncio.gather(
        prefect.list_runs(filters[0], BY_START.sort, 0, limit + 1),
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
        line(f"finra.weekly_refresh, {rows:,} rows", ours, "polars.read_csv", reading, f"{ratio:.1f}", aim)


def measure_runs() -> None:
    """The rows about runs: build a stack with many stored runs, measure, print."""
    with _folder() as (folder, environment):
        with prefect_server(environment, folder / "server.log"):
            stack = PrefectStack(environment["PREFECT_API_URL"], folder / "prefect", dict(os.environ))
            run_id = _one_real_run(stack, folder)
        copy_run(folder / "prefect" / "prefect.db", run_id, STORED_RUNS)
        with (
            prefect_server(environment, folder / "server.log"),
            api_process(stack.url, stack.home, folder / "api", **FOLLOWING) as api,
            temporary_settings({PREFECT_API_URL: stack.url}),
        ):
            asyncio.run(measure_api(stack, api.url, run_id))


def measure_schedules() -> None:
    """The rows about schedules, on a stack of their own."""
    with _folder() as (folder, environment):
        with (
            prefect_server(environment, folder / "server.log"),
            api_process(environment["PREFECT_API_URL"], folder / "prefect", folder / "first-api", **FOLLOWING) as api,
        ):
            stack = PrefectStack(environment["PREFECT_API_URL"], folder / "prefect", dict(os.environ))
            stack.post("/work_pools/", {"name": "spine", "type": "process"})
            stack.cli("deploy", "--all", "--no-prompt", "--prefect-file", str(DEMO / "prefect.yaml"))
            schedule_id, run_id = schedules.make_one(api, stack)
        schedules.fill(stack, schedule_id, run_id)
        with (
            prefect_server(environment, folder / "server.log"),
            api_process(stack.url, stack.home, folder / "api", **FOLLOWING) as api,
        ):
            seconds = schedules.settle(api, stack)
            print(f"(counting {schedules.SCHEDULES * schedules.RUNS_EACH:,} runs of before: {seconds:.0f} s)")
            asyncio.run(schedules.measure(stack, api.url))


def measure_alerts() -> None:
    """The rows about alerts, on SQLite and on PostgreSQL."""
    open_ = {"SPINE_ALLOW_PRIVATE_ADDRESSES": "true"}
    with (
        _folder() as (folder, environment),
        prefect_server(environment, folder / "server.log"),
        postgresql_server(folder / "postgresql") as server,
        fresh_database(server) as database,
    ):
        stack = PrefectStack(environment["PREFECT_API_URL"], folder / "prefect", dict(os.environ))
        with api_process(stack.url, stack.home, folder / "api", **FOLLOWING, **open_) as api:
            alerts.measure_sending(api, "SQLite")
            alerts.measure_failures(api, stack)
        with api_process(stack.url, stack.home, folder / "pg-api", database, **FOLLOWING, **open_) as api:
            alerts.measure_sending(api, "PostgreSQL")
            alerts.measure_million(api, database)


def measure_worker() -> None:
    """The rows about workers, with Prefect on PostgreSQL where there is one: on SQLite it freezes under many runs."""
    with ExitStack() as cleanup:
        folder, environment = cleanup.enter_context(_folder())
        environment |= cleanup.enter_context(prefect_database())
        server = cleanup.enter_context(prefect_server(environment, folder / "server.log"))
        api = cleanup.enter_context(
            api_process(environment["PREFECT_API_URL"], folder / "prefect", folder / "api", **FOLLOWING)
        )
        stack = PrefectStack(environment["PREFECT_API_URL"], folder / "prefect", dict(os.environ))
        worker.measure(stack, api, folder, server)


def measure_sources() -> None:
    """The rows about sources."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(sources.measure(Path(folder)))


@contextmanager
def _folder() -> Iterator[tuple[Path, dict[str, str]]]:
    with tempfile.TemporaryDirectory() as name:
        environment = prefect_environment(Path(name) / "prefect", free_port())
        os.environ |= environment
        yield Path(name), environment


def main() -> None:
    """Measure everything, or only the parts that the command line names."""
    parts = {
        "runs": measure_runs,
        "schedules": measure_schedules,
        "alerts": measure_alerts,
        "finra": measure_finra,
        "sources": measure_sources,
        "worker": measure_worker,
    }
    print_header()
    for name in sys.argv[1:] or parts:
        parts[name]()
        write_to_readme()


def _one_real_run(stack: PrefectStack, folder: Path) -> str:
    stack.post("/work_pools/", {"name": "spine", "type": "process"})
    stack.cli("deploy", "--all", "--no-prompt", "--prefect-file", str(DEMO / "prefect.yaml"))
    (folder / "unless").touch()
    with (
        prefect_worker(stack.environment, folder / "worker.log"),
        api_process(stack.url, stack.home, folder / "api", **FOLLOWING) as api,
    ):
        run_id = api.trigger("demo.three_steps", marks=str(folder / "marks"), unless=str(folder / "unless"))
        api.wait_for(run_id, "COMPLETED")
    return run_id


if __name__ == "__main__":
    main()
