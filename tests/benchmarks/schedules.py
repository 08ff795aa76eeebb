"""The rows about schedules: lists, creation and preview among many schedules with many runs."""

import asyncio
import time
from collections.abc import Awaitable
from functools import partial
from typing import Any
from uuid import uuid4

import httpx

from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import RATIO, at_most
from tests.benchmarks.pairs import Pair, connected
from tests.benchmarks.prepared import PARAMS, Samples, prepared_stack
from tests.benchmarks.seeding import copy_schedule
from tests.support.stack import Api, PrefectStack

TARGET = {"target_type": "WORKFLOW", "target_name": "demo.typed", "target_params": PARAMS}
# Schedules that are passed over, so that a page is one in the middle.
_OFFSET = 0.2


def measure(bench: Bench) -> None:
    """Add all rows."""
    scale = bench.scale

    def fill(stack: PrefectStack, samples: Samples) -> None:
        database, copies = stack.home / "prefect.db", scale.schedules - 1
        copy_schedule(database, samples.schedule, samples.run_of_schedule, copies, scale.runs_of_a_schedule)

    with prepared_stack(bench, "schedules", fill) as (stack, api, _):
        seconds = _settle(bench, api, stack)
        print(f"(counting {scale.schedules * scale.runs_of_a_schedule:,} runs of before: {seconds:.0f} s)")
        asyncio.run(_measure(bench, stack, api))


def _settle(bench: Bench, api: Api, stack: PrefectStack) -> float:
    """Wait until Prefect has planned runs for all and Spine has counted all; seconds that the counting took."""
    schedules, counted = bench.scale.schedules, 0
    began = time.perf_counter()
    while counted < (schedules - 1) * bench.scale.runs_of_a_schedule:
        pages = [api.get("/schedules", limit=100, offset=offset)["data"] for offset in range(0, schedules, 100)]
        counted = sum(one["run_count"] for page in pages for one in page)
        time.sleep(1)
    spent = time.perf_counter() - began
    planned = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    while stack.post("/flow_runs/count", planned) < 3 * schedules:
        time.sleep(1)
    return spent


async def _measure(bench: Bench, stack: PrefectStack, api: Api) -> None:
    schedules = bench.scale.schedules
    async with connected(bench, stack, api) as pair:
        for limit in (20, 100):
            page = {"limit": limit, "offset": int(schedules * _OFFSET)}
            ours = partial(pair.read, "/schedules", **page)
            direct = partial(pair.post, "/deployments/filter", {"sort": "CREATED_DESC", **page})
            what = f"list of {limit} at {schedules:,} schedules, {schedules * bench.scale.runs_of_a_schedule:,} runs"
            await pair.row(what, ours, "/deployments/filter", direct, at_most(2, RATIO))
        soonest = {
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
            "sort": "NEXT_SCHEDULED_START_TIME_ASC",
            "limit": 100,
        }
        ours = partial(pair.read, "/schedules/preview-next", count=100)
        direct = partial(pair.post, "/flow_runs/filter", soonest)
        what = f"preview of 100 over {schedules:,} schedules"
        await pair.row(what, ours, "the soonest 100 planned runs", direct, at_most(2, RATIO))
        await _creation(pair)


async def _creation(pair: Pair) -> None:
    deployment = await _deployment(pair.prefect)

    def create() -> Awaitable[None]:
        return pair.write("/schedules", {**TARGET, "name": f"made-{uuid4().hex}", "cron_expression": "0 5 * * *"})

    def create_directly() -> Awaitable[Any]:
        return pair.post("/deployments/", {**deployment, "name": uuid4().hex})

    await pair.row("create a schedule", create, "POST /deployments/", create_directly, at_most(2.5, RATIO))


async def _deployment(prefect: httpx.AsyncClient) -> dict[str, Any]:
    made = (await prefect.get("/deployments/name/demo.typed/the-first")).raise_for_status().json()
    kept = ("flow_id", "entrypoint", "pull_steps", "parameter_openapi_schema", "parameters", "tags", "work_pool_name")
    schedule = {"schedule": {"cron": "0 5 * * *", "timezone": "UTC"}, "active": True}
    return {**{name: made[name] for name in kept}, "schedules": [schedule]}
