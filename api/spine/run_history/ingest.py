"""Read Prefect's run history from a durable cursor, so that no ending is ever missed, whoever was down when it came.

Prefect stamps the end of a run with its own clock. A transaction may become visible a little after its stamp, so each
reading begins somewhat before the cursor. A run that is forced from one final state into another keeps the first end,
however long ago that was; Prefect's stored events tell of those.
"""

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update

from spine.database import SessionFactory, reading, transaction
from spine.prefect.client import MOST_ROWS, FlowRun, Prefect
from spine.prefect.filters import RunFilter
from spine.run_history.outcomes import CURSOR, record_endings
from spine.tables.run_history import FollowerCursor

OVERLAP = timedelta(seconds=60)

ENDED = RunFilter(
    runs={
        "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}},
        "end_time": {"is_null_": False},
    }
)
NEWEST_END_FIRST = "END_TIME_DESC"

AfterPage = Callable[[], Awaitable[object]]


async def catch_up(prefect: Prefect, sessions: SessionFactory, after_page: AfterPage) -> None:
    """Record all endings since the cursor and move it; `after_page` is awaited after each page of runs.

    The cursor moves only when all were recorded: a reading that breaks off is done again. Raises `PrefectUnavailable`
    and `DatabaseUnavailable`.
    """
    cursor = await read_cursor(sessions)
    if cursor is not None:
        changed = await prefect.runs_put_from_end_to_end(cursor - OVERLAP)
        await record_again(prefect, sessions, changed)
    await read_since(prefect, sessions, after_page, OVERLAP)


async def read_since(prefect: Prefect, sessions: SessionFactory, after_page: AfterPage, overlap: timedelta) -> None:
    """Record the runs whose first end is after the cursor, and some before, and move the cursor.

    Rows that leave while one reads (retried runs) would shift offsets, so each page begins below the oldest end of the
    one before.
    """
    cursor = await read_cursor(sessions)
    window = ENDED.between("end_time", since=cursor - overlap) if cursor else ENDED
    newest: datetime | None = None
    while True:
        page = await prefect.list_runs(window, NEWEST_END_FIRST)
        await record_endings(sessions, page)
        await after_page()
        ends = [run.end_time for run in page if run.end_time is not None]
        newest = newest or max(ends, default=None)
        if len(page) < MOST_ROWS:
            break
        # The page may have cut through runs that ended at one moment; they can be more than fit into a page.
        oldest = min(ends)
        at_once = await prefect.all_runs(ENDED.between("end_time", since=oldest, until=oldest))
        await _record_in_parts(sessions, at_once)
        window = window.between("end_time", until=oldest - timedelta(microseconds=1))
    if newest is not None and newest != cursor:
        await _move_cursor(sessions, newest)


async def record_again(prefect: Prefect, sessions: SessionFactory, run_ids: Iterable[object]) -> None:
    """Record how these runs ended, as Prefect has it now."""
    ids = [str(run_id) for run_id in run_ids]
    for start in range(0, len(ids), MOST_ROWS):
        wanted = RunFilter(runs={"id": {"any_": ids[start : start + MOST_ROWS]}})
        await record_endings(sessions, await prefect.list_runs(wanted, "ID_DESC"))


async def read_cursor(sessions: SessionFactory) -> datetime | None:
    """Up to where all endings are recorded, in Prefect's clock; None before the first whole reading."""
    async with reading(sessions) as session:
        return await session.scalar(select(FollowerCursor.read_until).where(FollowerCursor.name == CURSOR))


async def _record_in_parts(sessions: SessionFactory, runs: list[FlowRun]) -> None:
    """Record many runs without handing the database more values than one statement takes."""
    for start in range(0, len(runs), MOST_ROWS):
        await record_endings(sessions, runs[start : start + MOST_ROWS])


async def _move_cursor(sessions: SessionFactory, to: datetime) -> None:
    mine = FollowerCursor.name == CURSOR
    # Another follower may have moved it further meanwhile.
    behind = or_(FollowerCursor.read_until.is_(None), FollowerCursor.read_until < to)
    async with transaction(sessions) as session:
        await session.execute(update(FollowerCursor).where(mine, behind).values(read_until=to))
