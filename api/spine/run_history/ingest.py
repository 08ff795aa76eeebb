"""Ingest the outcomes of runs from Prefect with a durable cursor, so that none is missed during an outage.

Prefect sets a run's end time by its own clock, and a transaction may become visible a little later, so each read starts
somewhat before the cursor. A run that is forced from one final state into another keeps its first end time, however
old; such runs are found in Prefect's stored events.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update

from spine.database import SessionFactory, reading, transaction
from spine.prefect.client import MOST_ROWS, FlowRun, Prefect
from spine.prefect.filters import RunFilter
from spine.run_history.outcomes import CURSOR, record_outcomes
from spine.tables.base import utc_now
from spine.tables.run_history import FollowerCursor

OVERLAP = timedelta(seconds=60)
# At most so far apart are the clocks of Prefect and of this process.
CLOCKS_DIFFER = timedelta(days=1)

ENDED = RunFilter(
    runs={
        "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}},
        "end_time": {"is_null_": False},
    }
)
NEWEST_END_FIRST = "END_TIME_DESC"

AfterPage = Callable[[], Awaitable[object]]
# Looks at runs before their outcomes are recorded.
CheckRuns = Callable[[Prefect, Sequence[FlowRun]], Awaitable[None]]


async def check_nothing(_prefect: Prefect, _runs: Sequence[FlowRun]) -> None:
    """Accept all runs as they are."""


async def catch_up(
    prefect: Prefect, sessions: SessionFactory, after_page: AfterPage, check: CheckRuns = check_nothing
) -> None:
    """Record all outcomes since the cursor and move it; `after_page` is awaited after each page of runs.

    The cursor moves only after everything was recorded, so an interrupted read is repeated. Raises `PrefectUnavailable`
    and `DatabaseUnavailable`.
    """
    cursor = await read_cursor(sessions)
    if cursor is not None:
        changed = await prefect.runs_with_new_final_state(cursor - OVERLAP)
        await refresh_outcomes(prefect, sessions, changed, check)
    await ingest_new(prefect, sessions, after_page, OVERLAP, check)


async def ingest_new(
    prefect: Prefect,
    sessions: SessionFactory,
    after_page: AfterPage,
    overlap: timedelta,
    check: CheckRuns = check_nothing,
) -> None:
    """Record the runs that first ended after the cursor minus `overlap`, and move the cursor.

    Runs that are retried meanwhile leave the result and would shift offsets, so each page starts below the oldest end
    time of the page before.
    """
    cursor = await read_cursor(sessions)
    window = ENDED.between("end_time", since=cursor - overlap) if cursor else ENDED
    newest: datetime | None = None
    while True:
        page = await prefect.list_runs(window, NEWEST_END_FIRST)
        await check(prefect, page)
        await record_outcomes(sessions, page)
        await after_page()
        ends = [run.end_time for run in page if run.end_time is not None]
        newest = newest or max(ends, default=None)
        if page.held < MOST_ROWS or not ends:
            break
        # The page may contain only some of the runs that ended at its oldest time, which can be more than a page.
        oldest = min(ends)
        at_oldest = await prefect.all_runs(ENDED.between("end_time", since=oldest, until=oldest))
        await check(prefect, at_oldest)
        await _record_in_batches(sessions, at_oldest)
        window = window.between("end_time", until=oldest - timedelta(microseconds=1))
    if newest is not None and newest != cursor:
        await _move_cursor(sessions, newest)


async def refresh_outcomes(
    prefect: Prefect, sessions: SessionFactory, run_ids: Iterable[object], check: CheckRuns = check_nothing
) -> None:
    """Record the outcomes that Prefect has now for these runs."""
    ids = [str(run_id) for run_id in run_ids]
    for start in range(0, len(ids), MOST_ROWS):
        wanted = RunFilter(runs={"id": {"any_": ids[start : start + MOST_ROWS]}})
        runs = await prefect.list_runs(wanted, "ID_DESC")
        await check(prefect, runs)
        await record_outcomes(sessions, runs)


async def read_cursor(sessions: SessionFactory) -> datetime | None:
    """The time, by Prefect's clock, up to which all outcomes are recorded; None before the first full read."""
    async with reading(sessions) as session:
        return await session.scalar(select(FollowerCursor.read_until).where(FollowerCursor.name == CURSOR))


async def _record_in_batches(sessions: SessionFactory, runs: list[FlowRun]) -> None:
    """Record many runs with no more values in a statement than the database accepts."""
    for start in range(0, len(runs), MOST_ROWS):
        await record_outcomes(sessions, runs[start : start + MOST_ROWS])


async def _move_cursor(sessions: SessionFactory, to: datetime) -> None:
    mine = FollowerCursor.name == CURSOR
    # Another follower may have moved it further meanwhile.
    behind = or_(
        FollowerCursor.read_until.is_(None),
        FollowerCursor.read_until < to,
        # Nobody has written this: it is no time, or an endless one.
        FollowerCursor.read_until > utc_now() + CLOCKS_DIFFER,
    )
    async with transaction(sessions) as session:
        await session.execute(update(FollowerCursor).where(mine, behind).values(read_until=to))
