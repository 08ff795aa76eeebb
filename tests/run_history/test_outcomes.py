"""Recording outcomes: each once, and only the latest of a run."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

from spine.run_history.outcomes import record_outcomes
from sqlalchemy import URL

from tests.run_history.support import Line, Spine, ago, spine_on
from tests.support.stack import PrefectStack


async def record(spine: Spine, line: Line, *run_ids: str) -> set[str]:
    """Record runs as Prefect has them now, and return the ids of those with a new outcome."""
    return {str(outcome.run_id) for outcome in await record_outcomes(spine.sessions, await line.read(spine, *run_ids))}


def due(when: datetime) -> dict[str, Any]:
    return {"type": "SCHEDULED", "state_details": {"scheduled_time": when.isoformat()}}


async def test_each_outcome_is_counted_once_however_often_it_is_read(
    database: URL, stack: PrefectStack, line: Line
) -> None:
    async with spine_on(database, stack.url) as spine:
        await spine.begin_at(None)
        succeeded = [line.make("COMPLETED") for _ in range(2)]
        failed = [line.make("FAILED"), line.make("CRASHED")]
        cancelled = [line.run_through("RUNNING", "CANCELLED")]
        never_started = [line.run_through("CANCELLED"), line.make("CANCELLED")]
        others = [line.make("RUNNING"), line.make("SCHEDULED"), stack.make_run(line.flow_id, "FAILED")]
        ended = [*succeeded, *failed, *cancelled, *never_started]
        assert await record(spine, line, *ended, *others) == set(ended)
        assert await spine.counts(line.id) == (5, 2, 2, 2)
        assert await record(spine, line, *ended, *others) == set()
        (twice,) = await line.read(spine, line.make("COMPLETED"))
        assert len(await record_outcomes(spine.sessions, [twice, twice])) == 1
        assert await spine.counts(line.id) == (6, 3, 2, 0)
        outcomes = await spine.outcomes(line.id)
        assert {outcomes[run_id] for run_id in failed} == {"FAILED"}
        assert {outcomes[run_id] for run_id in [*cancelled, *never_started]} == {"CANCELLED"}


async def test_a_failed_run_whose_retry_succeeds_counts_as_one_success(
    database: URL, stack: PrefectStack, line: Line
) -> None:
    async with spine_on(database, stack.url) as spine:
        await spine.begin_at(None)
        run_id = line.run_through("RUNNING", "FAILED")
        assert await record(spine, line, run_id) == {run_id}
        assert await spine.counts(line.id) == (1, 0, 1, 1)
        for state in ("SCHEDULED", "RUNNING"):
            line.put(run_id, state)
            assert await record(spine, line, run_id) == set()
        line.put(run_id, "COMPLETED")
        assert await record(spine, line, run_id) == {run_id}
        assert await spine.counts(line.id) == (1, 1, 0, 0)


async def test_a_forced_state_replaces_the_outcome_and_an_old_page_does_not(
    database: URL, stack: PrefectStack, line: Line
) -> None:
    async with spine_on(database, stack.url) as spine:
        await spine.begin_at(None)
        run_id = line.run_through("RUNNING", "COMPLETED")
        expected = {
            "COMPLETED": (1, 1, 0, 0),
            "FAILED": (1, 0, 1, 1),
            "CRASHED": (1, 0, 1, 1),
            "CANCELLED": (1, 0, 0, 0),
        }
        pages = []
        for state, counts in expected.items():
            line.put(run_id, state)
            pages.append(await line.read(spine, run_id))
            assert len(await record_outcomes(spine.sessions, pages[-1])) == 1
            assert await spine.counts(line.id) == counts
        for page in pages:
            assert await record_outcomes(spine.sessions, page) == []
        assert await spine.counts(line.id) == (1, 0, 0, 0)


async def test_consecutive_failures_are_counted_by_due_time(database: URL, stack: PrefectStack, line: Line) -> None:
    async with spine_on(database, stack.url) as spine:
        await spine.begin_at(None)
        base = ago(hours=10)
        # In the order in which they end: state, due time in hours after the base, consecutive failures.
        story = [
            ("FAILED", 1, 1),
            ("FAILED", 3, 2),
            ("CANCELLED", 4, 2),
            ("COMPLETED", 2, 1),
            ("FAILED", 1.5, 1),
            ("CRASHED", 5, 2),
            ("COMPLETED", 6, 0),
            ("FAILED", 5.5, 0),
        ]
        for state, hours, consecutive in story:
            body = {"flow_id": line.flow_id, "deployment_id": str(line.id)}
            run_id = stack.post("/flow_runs/", {**body, "state": due(base + timedelta(hours=hours))})["id"]
            line.put(run_id, state)
            await record(spine, line, run_id)
            assert (await spine.counts(line.id))[3] == consecutive, (state, hours)


async def test_last_run_at_is_the_newest_start_of_the_runs_that_started(
    database: URL, stack: PrefectStack, line: Line
) -> None:
    async with spine_on(database, stack.url) as spine:
        await spine.begin_at(None)
        began = line.run_through("RUNNING")
        never = line.run_through("CANCELLED")
        await record(spine, line, never)
        assert await spine.last_run_at(line.id) is None
        (run,) = await line.read(spine, began)
        line.put(began, "CANCELLED")
        await record(spine, line, began)
        assert await spine.last_run_at(line.id) == run.start_time
        # While it is forced into COMPLETED, it counts as a run that started.
        line.put(never, "COMPLETED")
        await record(spine, line, never)
        assert await spine.counts(line.id) == (2, 1, 0, 0)
        (forced,) = await line.read(spine, never)
        assert await spine.last_run_at(line.id) == forced.start_time
        line.put(never, "CANCELLED")
        await record(spine, line, never)
        assert await spine.counts(line.id) == (1, 0, 0, 0)
        assert await spine.last_run_at(line.id) == run.start_time


async def test_concurrent_recordings_count_each_outcome_once(database: URL, stack: PrefectStack, line: Line) -> None:
    async with spine_on(database, stack.url) as one, spine_on(database, stack.url) as other:
        await one.begin_at(None)
        run_ids = [line.make(state) for state in ("COMPLETED", "FAILED", "COMPLETED", "CRASHED") for _ in range(3)]
        runs = await line.read(one, *run_ids)
        recorded = await asyncio.gather(
            *(
                record_outcomes(spine.sessions, order)
                for spine in (one, other)
                for order in (runs, runs[::-1], runs[3:])
            )
        )
        assert sorted(str(outcome.run_id) for outcomes in recorded for outcome in outcomes) == sorted(run_ids)
        assert (await one.counts(line.id))[:3] == (12, 6, 6)
