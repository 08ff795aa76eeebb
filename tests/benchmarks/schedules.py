"""The rows about schedules: lists, creation and preview at 1,000 schedules with 20,000 runs."""

import time
from collections.abc import Awaitable
from functools import partial
from typing import Any
from uuid import uuid4

import httpx

from tests.benchmarks.seeding import copy_schedule
from tests.benchmarks.timing import alternate, row
from tests.support.stack import ADMIN_KEY, Api, PrefectStack

SCHEDULES = 1_000
RUNS_EACH = 20
TARGET = {"target_type": "WORKFLOW", "target_name": "demo.typed", "target_params": {"day": "2025-12-15", "tier": "A"}}


def make_one(api: Api, stack: PrefectStack) -> tuple[str, str]:
    """A schedule and a finished run of it, to be copied; their ids."""
    body = {**TARGET, "name": "the-first", "cron_expression": "0 5 * * *", "timezone": "America/New_York"}
    schedule_id = api.client.post("/schedules", json=body).json()["id"]
    flow_id = stack.flow_id("demo.typed")
    return schedule_id, stack.make_run(flow_id, "COMPLETED", deployment_id=schedule_id)


def fill(stack: PrefectStack, schedule_id: str, run_id: str) -> None:
    """Store the copies; the Prefect server must not be running."""
    copy_schedule(stack.home / "prefect.db", schedule_id, run_id, SCHEDULES - 1, RUNS_EACH)


def settle(api: Api, stack: PrefectStack) -> float:
    """Wait until Prefect has planned runs for all and Spine has counted all; seconds that the counting took."""
    began = time.perf_counter()
    counted = 0
    while counted < (SCHEDULES - 1) * RUNS_EACH:
        pages = [api.get("/schedules", limit=100, offset=offset)["data"] for offset in range(0, SCHEDULES, 100)]
        counted = sum(one["run_count"] for page in pages for one in page)
        time.sleep(1)
    spent = time.perf_counter() - began
    planned = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    while stack.post("/flow_runs/count", planned) < 3 * SCHEDULES:
        time.sleep(1)
    return spent


async def measure(stack: PrefectStack, url: str) -> None:
    """Print the rows."""
    headers = {"X-API-Key": ADMIN_KEY}
    async with (
        httpx.AsyncClient(base_url=f"{url}/api/v1", headers=headers, timeout=60) as spine,
        httpx.AsyncClient(base_url=stack.url, timeout=60) as prefect,
    ):
        for limit in (20, 100):
            page = {"sort": "CREATED_DESC", "limit": limit, "offset": 200}
            ours, direct = await alternate(
                partial(spine.get, "/schedules", params={"limit": limit, "offset": 200}),
                partial(prefect.post, f"{stack.url}/deployments/filter", json=page),
            )
            what = f"list of {limit} at {SCHEDULES:,} schedules, {SCHEDULES * RUNS_EACH:,} runs"
            row(what, ours, "/deployments/filter", direct, "ms", "≤ 2")
        soonest = {
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
            "sort": "NEXT_SCHEDULED_START_TIME_ASC",
            "limit": 100,
        }
        ours, direct = await alternate(
            partial(spine.get, "/schedules/preview-next", params={"count": 100}),
            partial(prefect.post, f"{stack.url}/flow_runs/filter", json=soonest),
            rounds=20,
        )
        row(f"preview of 100 over {SCHEDULES:,} schedules", ours, "the soonest 100 planned runs", direct, "ms", "")
        deployment = await _deployment(prefect, stack)

        def create() -> Awaitable[object]:
            body = {**TARGET, "name": f"made-{uuid4().hex}", "cron_expression": "0 5 * * *"}
            return spine.post("/schedules", json=body)

        def create_directly() -> Awaitable[object]:
            return prefect.post(f"{stack.url}/deployments/", json={**deployment, "name": uuid4().hex})

        ours, direct = await alternate(create, create_directly, rounds=20)
        row("create a schedule", ours, "POST /deployments/", direct, "ms", "")


async def _deployment(prefect: httpx.AsyncClient, stack: PrefectStack) -> dict[str, Any]:
    made = (await prefect.get(f"{stack.url}/deployments/name/demo.typed/the-first")).json()
    kept = ("flow_id", "entrypoint", "pull_steps", "parameter_openapi_schema", "parameters", "tags", "work_pool_name")
    schedule = {"schedule": {"cron": "0 5 * * *", "timezone": "UTC"}, "active": True}
    return {**{name: made[name] for name in kept}, "schedules": [schedule]}
