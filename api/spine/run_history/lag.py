"""How far the follower is behind: the runs that have ended in Prefect and are not recorded yet."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from spine.database import SessionFactory, reading
from spine.prefect.client import Prefect
from spine.run_history.ingest import ENDED, NEWEST_END_FIRST
from spine.run_history.outcomes import CURSOR
from spine.tables.base import utc_now
from spine.tables.run_history import FollowerCursor

# A follower that works records a run within seconds.
LONGEST_LAG = timedelta(seconds=60)


@dataclass(frozen=True)
class Lag:
    """How many runs have ended and are not recorded, and the age in seconds of the one that ended first."""

    runs: int
    seconds: float
    # Whether a process has the lease to follow.
    is_followed: bool
    has_begun: bool

    @property
    def is_stuck(self) -> bool:
        """Whether a run has waited longer than it should."""
        return self.seconds > LONGEST_LAG.total_seconds()


async def read_lag(prefect: Prefect, sessions: SessionFactory) -> Lag:
    """Compare the follower's cursor with Prefect. Raises `PrefectUnavailable` and `DatabaseUnavailable`."""
    async with reading(sessions) as session:
        cursor = (await session.scalars(select(FollowerCursor).where(FollowerCursor.name == CURSOR))).one_or_none()
    until = cursor.read_until if cursor else None
    expires = cursor.lease_expires_at if cursor else None
    is_followed = cursor is not None and cursor.lease_owner is not None and expires is not None and expires > utc_now()
    later = ENDED.between("end_time", since=until + timedelta(microseconds=1)) if until else ENDED
    waiting = await prefect.count_runs(later)
    # Prefect sorts by end time only backwards.
    oldest = await prefect.list_runs(later, NEWEST_END_FIRST, waiting - 1, 1) if waiting else []
    ends: list[datetime] = [run.end_time for run in oldest if run.end_time is not None]
    # Before the first full read, the whole history waits, and its age says nothing.
    seconds = max((utc_now() - ends[0]).total_seconds(), 0.0) if ends and until else 0.0
    return Lag(waiting, seconds, is_followed, until is not None)
