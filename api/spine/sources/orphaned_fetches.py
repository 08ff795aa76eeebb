"""Fetches that cannot record their own result: their flow run was killed, cancelled, deleted or never started."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import bindparam, or_, select

from spine.database import SessionFactory, reading, transaction
from spine.prefect.client import FlowRun, Prefect
from spine.prefect.filters import RunFilter
from spine.schemas import ErrorCategory
from spine.sources.fetch_results import FetchResult
from spine.sources.fetch_state import finish_fetch, is_abandoned, lease_has_expired, start_grace_period
from spine.tables.base import utc_now
from spine.tables.sources import OPEN, Fetch

# Longer than a request for a fetch takes to be answered.
TIME_TO_START = timedelta(seconds=60)
# A run can become visible in Prefect a moment after it was recorded here.
TIME_TO_APPEAR = timedelta(seconds=10)
MOST_AT_ONCE = 200
LONGEST_MESSAGE = 500
BEFORE_ALL = (datetime.min.replace(tzinfo=UTC), "")


class OrphanedFetches:
    """A chore of the follower: record the result of fetches that can no longer do so themselves."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        # The last fetch of the previous batch, when there was more than one batch.
        self._after = BEFORE_ALL

    async def run(self, prefect: Prefect, sessions: SessionFactory) -> None:
        """Check the oldest open fetches, or those that follow the previous batch."""
        fetches = await _open_fetches(sessions, self._after)
        await _start_grace_periods(sessions, fetches)
        ids = [str(fetch.run_id) for fetch in fetches if fetch.run_id]
        runs = {}
        if ids:
            found = await prefect.all_runs(RunFilter(runs={"id": {"any_": ids}}))
            runs = {run.id: run for run in found}
        for fetch in fetches:
            result = _result(fetch, runs.get(fetch.run_id) if fetch.run_id else None)
            if result is not None and await finish_fetch(sessions, fetch.id, result) is not None:
                self._wake()
        are_more = len(fetches) == MOST_AT_ONCE
        self._after = (fetches[-1].created_at, fetches[-1].id) if are_more else BEFORE_ALL


async def _open_fetches(sessions: SessionFactory, after: tuple[datetime, str]) -> Sequence[Fetch]:
    # The states are literals in the statement: with bound parameters a database cannot use the partial index on them.
    is_open = Fetch.status.in_(bindparam("open", OPEN, expanding=True, literal_execute=True))
    follows = (Fetch.created_at >= after[0], or_(Fetch.created_at > after[0], Fetch.id > after[1]))
    wanted = select(Fetch).where(is_open, *follows).order_by(Fetch.created_at, Fetch.id).limit(MOST_AT_ONCE)
    async with reading(sessions) as session:
        return (await session.scalars(wanted)).all()


async def _start_grace_periods(sessions: SessionFactory, fetches: Sequence[Fetch]) -> None:
    now = utc_now()
    expired = [fetch.id for fetch in fetches if lease_has_expired(fetch, now) and fetch.grace_until is None]
    if expired:
        async with transaction(sessions) as session:
            await start_grace_period(session, expired)


def _result(fetch: Fetch, run: FlowRun | None) -> FetchResult | None:
    """The result of a fetch that has ended; None while it may still be in progress."""
    now = utc_now()
    if fetch.run_id is None:
        return _failure("The fetch was never started.") if fetch.created_at < now - TIME_TO_START else None
    if run is None:
        since = fetch.started_at or fetch.created_at
        is_deleted = since < now - TIME_TO_APPEAR
        return _failure("Its flow run was deleted.", raises_alert=False) if is_deleted else None
    state = run.state
    if state is None or not state.is_final():
        return _failure("The process that ran the fetch is gone.") if is_abandoned(fetch, now) else None
    if state.is_cancelled():
        return _failure("Its flow run was cancelled.", raises_alert=False)
    reason = (state.message or "Prefect gives no reason")[:LONGEST_MESSAGE]
    return _failure(f"Its flow run ended as {state.name} before the fetch was complete: {reason}")


def _failure(error: str, *, raises_alert: bool = True) -> FetchResult:
    return FetchResult(error=error, error_category=ErrorCategory.ORCHESTRATION, raises_alert=raises_alert)
