"""The rows about the API with many stored runs: reads, and the requests that start a run."""

import asyncio
from collections.abc import Awaitable
from functools import partial
from uuid import uuid4

from tests.benchmarks.bench import Bench
from tests.benchmarks.clients import measure_clients, measure_growth
from tests.benchmarks.figures import RATIO, at_most
from tests.benchmarks.pairs import Pair, connected
from tests.benchmarks.prepared import PARAMS, Samples, prepared_stack
from tests.benchmarks.seeding import copy_run
from tests.support.stack import Api, PrefectStack

AS_FAST = at_most(1.15, RATIO)
CREATE = "POST create_flow_run"


def measure(bench: Bench) -> None:
    """Add all rows."""

    def fill(stack: PrefectStack, samples: Samples) -> None:
        copy_run(stack.home / "prefect.db", samples.run, bench.scale.stored_runs)

    with prepared_stack(bench, "reads", fill) as (stack, api, samples):
        asyncio.run(_measure(bench, stack, api, samples))
        measure_clients(bench, api, samples.run)
        measure_growth(bench, api)


async def _measure(bench: Bench, stack: PrefectStack, api: Api, samples: Samples) -> None:
    async with connected(bench, stack, api) as pair:
        await _reads(pair, samples)
        await _triggers(pair, stack, samples)
        await _fetches(pair, stack, api)


async def _reads(pair: Pair, samples: Samples) -> None:
    async def page(limit: int) -> None:
        found = await pair.post("/flow_runs/paginate", {"sort": "START_TIME_DESC", "limit": limit})
        runs = [run["id"] for run in found["results"]]
        await pair.post("/ui/flow_runs/count-task-runs", {"flow_run_ids": runs})

    async def detail() -> None:
        (await pair.prefect.get(f"/flow_runs/{samples.run}")).raise_for_status()
        await pair.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [samples.run]}}})

    compared = "/flow_runs/paginate, count of task runs"
    for limit in (20, 100):
        what = f"list of {limit} at {pair.bench.scale.stored_runs:,} runs"
        aims = (at_most(1, RATIO),) if limit == 20 else ()
        await pair.row(what, partial(pair.read, "/workflows/runs", limit=limit), compared, partial(page, limit), *aims)
    ours = partial(pair.read, f"/workflows/runs/{samples.run}")
    await pair.row("detail of a run", ours, "/flow_runs/{id}, /task_runs/filter", detail, at_most(1, RATIO))


async def _triggers(pair: Pair, stack: PrefectStack, samples: Samples) -> None:
    deployment = stack.deployment("demo.typed", "demo.typed")["id"]
    ours = partial(pair.write, "/workflows/trigger/demo.typed", {"params": PARAMS})
    await pair.row("trigger", ours, CREATE, partial(pair.create, deployment, PARAMS), AS_FAST)
    ours = partial(pair.write, f"/schedules/{samples.schedule}/run-now")
    await pair.row("run a schedule now", ours, CREATE, partial(pair.create, samples.schedule, PARAMS), AS_FAST)


async def _fetches(pair: Pair, stack: PrefectStack, api: Api) -> None:
    """Each source is fetched once: another fetch would join the one that waits for a worker."""
    left = [_register(api, stack) for _ in range(pair.bench.scale.rounds + 3)]
    deployment = stack.deployment("spine.fetch_source", "spine.fetch_source")["id"]

    def fetch() -> Awaitable[None]:
        return pair.write(f"/sources/{left.pop()}/fetch")

    direct = partial(pair.create, deployment, {"source": _register(api, stack)})
    await pair.row("fetch a source", fetch, CREATE, direct, AS_FAST)


def _register(api: Api, stack: PrefectStack) -> str:
    name = f"source-{uuid4().hex[:10]}"
    (stack.home.parent / "files" / "rows.csv").write_text("a,b\n1,2\n")
    made = api.client.post("/sources", json={"name": name, "source_type": "file", "config": {"path": "rows.csv"}})
    assert made.status_code == 201, made.text
    return name
