"""Fetches whose flow run has ended without a word: killed, cancelled, deleted, or never started."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import bindparam, or_, select

from spine.database import SessionFactory, reading, transaction
from spine.prefect.client import FlowRun, Prefect
from spine.prefect.filters import RunFilter
from spine.sources.fetch_results import Ending
from spine.sources.fetch_state import end, is_abandoned, lease_has_expired, start_grace_period
from spine.tables.base import utc_now
from spine.tables.sources import OPEN, Fetch

# A request has long been answered by then.
TIME_TO_START = timedelta(seconds=60)
# Prefect's row of a run can become visible a moment after it was noted.
TIME_TO_APPEAR = timedelta(seconds=10)
MOST_AT_ONCE = 200
BEFORE_ALL = (datetime.min.replace(tzinfo=UTC), "")


class OrphanedFetches:
    """A chore of the follower: write down the end of fetches that cannot do so themselves any more."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        # The last one that was looked at, where there are more than one look takes.
        self._after = BEFORE_ALL

    async def run(self, prefect: Prefect, sessions: SessionFactory) -> None:
        """Look at the oldest fetches that are open, or at those that follow the ones of the last look."""
        fetches = await _open_fetches(sessions, self._after)
        await _call_silent_ones(sessions, fetches)
        ids = [str(fetch.run_id) for fetch in fetches if fetch.run_id]
        runs = {}
        if ids:
            found = await prefect.all_runs(RunFilter(runs={"id": {"any_": ids}}))
            runs = {run.id: run for run in found}
        for fetch in fetches:
            ending = _ending(fetch, runs.get(fetch.run_id) if fetch.run_id else None)
            if ending is not None and await end(sessions, fetch.id, ending) is not None:
                self._wake()
        are_more = len(fetches) == MOST_AT_ONCE
        self._after = (fetches[-1].created_at, fetches[-1].id) if are_more else BEFORE_ALL


async def _open_fetches(sessions: SessionFactory, after: tuple[datetime, str]) -> Sequence[Fetch]:
    # The statement itself says which are open: the index of those is of no use to a database that is told later.
    is_open = Fetch.status.in_(bindparam("open", OPEN, expanding=True, literal_execute=True))
    follows = (Fetch.created_at >= after[0], or_(Fetch.created_at > after[0], Fetch.id > after[1]))
    wanted = select(Fetch).where(is_open, *follows).order_by(Fetch.created_at, Fetch.id).limit(MOST_AT_ONCE)
    async with reading(sessions) as session:
        return (await session.scalars(wanted)).all()


async def _call_silent_ones(sessions: SessionFactory, fetches: Sequence[Fetch]) -> None:
    now = utc_now()
    silent = [fetch.id for fetch in fetches if lease_has_expired(fetch, now) and fetch.last_call is None]
    if silent:
        async with transaction(sessions) as session:
            await start_grace_period(session, silent)


def _ending(fetch: Fetch, run: FlowRun | None) -> Ending | None:
    """How a fetch has ended; None while it has not."""
    now = utc_now()
    if fetch.run_id is None:
        return _ended("It was never started.") if fetch.created_at < now - TIME_TO_START else None
    if run is None:
        since = fetch.started_at or fetch.created_at
        return _ended("Its run was deleted.").silent() if since < now - TIME_TO_APPEAR else None
    state = run.state
    if state is None or not state.is_final():
        return _ended("The process that fetched it is gone.") if is_abandoned(fetch, now) else None
    if state.is_cancelled():
        return _ended("Its run was cancelled.").silent()
    return _ended(f"Its run ended as {state.name} before it did: {(state.message or 'Prefect keeps no reason')[:500]}")


def _ended(sentence: str) -> Ending:
    return Ending(error=sentence, error_category="ORCHESTRATION")
