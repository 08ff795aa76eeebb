"""Ingest from the cursor: no outcome is missed after an outage or while runs change."""

from datetime import timedelta
from uuid import UUID

import pytest
from spine.errors import PrefectUnavailable
from spine.prefect.filters import RunFilter
from spine.run_history.ingest import catch_up
from sqlalchemy import URL

from tests.run_history.support import Line, ago, spine_on, until
from tests.support.stack import PrefectStack


async def nothing() -> None:
    """Do nothing after a page."""


async def test_the_first_ingest_records_the_whole_history(database: URL, stack: PrefectStack, line: Line) -> None:
    async with spine_on(database, stack.url) as spine:
        await spine.begin_at(None)
        newest = line.make("COMPLETED")
        copies = line.copy(newest, [ago(days=3, seconds=number) for number in range(230)])
        (run,) = await line.read(spine, newest)
        await catch_up(spine.prefect, spine.sessions, nothing)
        assert set(await spine.outcomes(line.id)) == {newest, *copies}
        assert await spine.counts(line.id) == (231, 231, 0, 0)
        # Flows of other tests may have ended since.
        (last,) = await spine.prefect.list_runs(RunFilter(), "END_TIME_DESC", limit=1)
        read_until = (await spine.cursor()).read_until
        assert run.end_time is not None
        assert last.end_time is not None
        assert read_until is not None
        assert run.end_time <= read_until <= last.end_time


async def test_more_runs_with_the_same_end_time_than_fit_into_a_page(
    either_database: URL, stack: PrefectStack, line: Line
) -> None:
    async with spine_on(either_database, stack.url) as spine:
        failed = line.make("FAILED")
        moment = ago(days=2)
        ends = [moment - timedelta(seconds=1), *[moment] * 420, moment + timedelta(seconds=1)]
        copies = line.copy(failed, ends)
        await spine.begin_at(moment)
        await catch_up(spine.prefect, spine.sessions, nothing)
        assert set(await spine.outcomes(line.id)) == {failed, *copies}
        assert await spine.counts(line.id) == (423, 0, 423, 423)


async def test_runs_that_are_retried_during_the_ingest_hide_no_others(
    either_database: URL, stack: PrefectStack, line: Line
) -> None:
    async with spine_on(either_database, stack.url) as spine:
        first = line.make("COMPLETED")
        copies = line.copy(first, [ago(days=1, seconds=number) for number in range(260)])
        await spine.begin_at(ago(days=1, hours=1))
        retried = copies[:5]

        async def retry() -> None:
            while retried:
                line.put(retried.pop(), "SCHEDULED", name="AwaitingRetry")

        await catch_up(spine.prefect, spine.sessions, retry)
        assert retried == []
        assert set(await spine.outcomes(line.id)) == {first, *copies}


async def test_an_interrupted_ingest_is_repeated(either_database: URL, stack: PrefectStack, line: Line) -> None:
    async with spine_on(either_database, stack.url) as spine:
        first = line.make("COMPLETED")
        copies = line.copy(first, [ago(days=1, seconds=number) for number in range(250)])
        await spine.begin_at(begin := ago(days=1, hours=1))

        async def fail() -> None:
            raise PrefectUnavailable("gone")

        with pytest.raises(PrefectUnavailable):
            await catch_up(spine.prefect, spine.sessions, fail)
        assert 0 < len(await spine.outcomes(line.id)) < 251
        assert (await spine.cursor()).read_until == begin
        await catch_up(spine.prefect, spine.sessions, nothing)
        assert set(await spine.outcomes(line.id)) == {first, *copies}
        assert await spine.counts(line.id) == (251, 251, 0, 0)


async def test_a_run_that_became_visible_behind_the_cursor_is_recorded(
    either_database: URL, stack: PrefectStack, line: Line
) -> None:
    async with spine_on(either_database, stack.url) as spine:
        first = line.make("COMPLETED")
        await spine.begin_at(ago(minutes=1))
        await catch_up(spine.prefect, spine.sessions, nothing)
        late, too_late = line.copy(first, [ago(seconds=50), ago(hours=1)])
        await catch_up(spine.prefect, spine.sessions, nothing)
        assert set(await spine.outcomes(line.id)) == {first, late}
        assert too_late not in await spine.outcomes(line.id)


async def test_an_old_run_that_is_forced_into_another_state_while_spine_is_down(
    either_database: URL, stack: PrefectStack, line: Line
) -> None:
    async with spine_on(either_database, stack.url) as spine:
        (old,) = line.copy(line.make("FAILED"), [ago(days=5)])
        await spine.begin_at(ago(days=5))
        await catch_up(spine.prefect, spine.sessions, nothing)
        assert await spine.counts(line.id) == (2, 0, 2, 2)
        line.put(old, "COMPLETED", name="Settled by hand")
        newest = line.make("COMPLETED")

        async def stored() -> bool:
            return UUID(old) in await spine.prefect.runs_with_new_final_state(ago(minutes=2))

        await until(stored, "Prefect to store the event")
    async with spine_on(either_database, stack.url) as spine:
        await catch_up(spine.prefect, spine.sessions, nothing)
        assert (await spine.outcomes(line.id))[old] == "COMPLETED"
        assert newest in await spine.outcomes(line.id)
        assert await spine.counts(line.id) == (3, 2, 1, 0)
