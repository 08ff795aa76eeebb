"""Runs that stay RUNNING without a heartbeat are counted: their process, or its machine, may be gone."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.prefect.client import Prefect
from spine.run_history.heartbeats import LONGEST_SILENCE, count_silent_runs

from tests.support.processes import wait_until
from tests.support.stack import PrefectStack

EVENT = "prefect.flow-run.heartbeat"


async def count(stack: PrefectStack) -> int:
    with temporary_settings({PREFECT_API_URL: stack.url}):
        async with Prefect.connect(9) as prefect:
            return await count_silent_runs(prefect)


def make_old(stack: PrefectStack, run_id: str) -> None:
    with stack.tables() as tables:
        tables.change("flow_run", run_id, start_time=tables.time(datetime.now(UTC) - 2 * LONGEST_SILENCE))


def beat(stack: PrefectStack, run_id: str, at: datetime) -> None:
    event = {"occurred": at.isoformat(), "event": EVENT, "id": str(uuid4()), "payload": {}}
    stack.post("/events", [{**event, "resource": {"prefect.resource.id": f"prefect.flow-run.{run_id}"}}])
    which = {"event": {"name": [EVENT]}, "resource": {"id": [f"prefect.flow-run.{run_id}"]}}
    wait_until(lambda: stack.post("/events/filter", {"filter": which})["total"] == 1, "the event to be stored", 30)


@pytest.mark.slow
async def test_only_runs_that_are_silent_for_long_are_counted(stack: PrefectStack) -> None:
    before = await count(stack)
    flow_id = stack.flow_id(f"silent-{uuid4().hex[:8]}")
    silent, lively, stale, young = (stack.make_run(flow_id, "RUNNING") for _ in range(4))
    ended = stack.make_run(flow_id, "COMPLETED")
    for run_id in (silent, lively, stale, ended):
        make_old(stack, run_id)
    now = datetime.now(UTC)
    beat(stack, lively, now - timedelta(minutes=1))
    beat(stack, stale, now - LONGEST_SILENCE - timedelta(minutes=1))
    # The silent one, and the one whose last heartbeat is too old; not the young one.
    assert await count(stack) == before + 2
    stack.delete(f"/flow_runs/{young}")
    stack.delete(f"/flows/{flow_id}")
