"""Helpers for the tests of run history: Spine without an API, and deployments whose runs no worker executes."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.database import SessionFactory, make_engine, make_sessions
from spine.prefect.client import FlowRun, Prefect
from spine.prefect.filters import RunFilter
from spine.run_history import follower
from spine.run_history.follower import Follower
from spine.tables.run_history import DeploymentStatistics, FollowerCursor, RunAlertClaim, RunOutcome
from sqlalchemy import URL, delete, make_url, select, update
from sqlalchemy.exc import OperationalError

from tests.support.stack import PrefectStack


@dataclass
class Spine:
    """Spine's database and its Prefect client."""

    prefect: Prefect
    sessions: SessionFactory

    async def outcomes(self, deployment_id: UUID) -> dict[str, str]:
        """The recorded outcomes of a deployment's runs."""
        async with self.sessions() as session:
            rows = await session.scalars(select(RunOutcome).where(RunOutcome.deployment_id == deployment_id))
            return {str(row.run_id): row.outcome for row in rows}

    async def counts(self, deployment_id: UUID) -> tuple[int, int, int, int]:
        """The stored counts: runs, successes, failures, and consecutive failures."""
        async with self.sessions() as session:
            row = await session.get(DeploymentStatistics, deployment_id)
        return (row.run_count, row.success_count, row.failure_count, row.consecutive_failures) if row else (0, 0, 0, 0)

    async def last_run_at(self, deployment_id: UUID) -> datetime | None:
        """The stored start of the newest run."""
        async with self.sessions() as session:
            row = await session.get(DeploymentStatistics, deployment_id)
        return row.last_run_at if row else None

    async def cursor(self) -> FollowerCursor:
        """The follower's row."""
        async with self.sessions() as session:
            return (await session.scalars(select(FollowerCursor))).one()

    async def begin_at(self, read_until: datetime | None) -> None:
        """Delete everything recorded and set the cursor to `read_until`."""

        async def is_reset() -> bool:
            try:
                await self._begin_at(read_until)
            except OperationalError:
                # On SQLite, a follower of the previous test may still be stopping.
                return False
            return True

        await until(is_reset, "the database to be free", 60)

    async def _begin_at(self, read_until: datetime | None) -> None:
        async with self.sessions.begin() as session:
            await session.execute(delete(RunAlertClaim))
            await session.execute(delete(RunOutcome))
            await session.execute(delete(DeploymentStatistics))
            changes = {"read_until": read_until, "lease_owner": None, "lease_expires_at": None}
            await session.execute(update(FollowerCursor).values(**changes))


@asynccontextmanager
async def spine_on(database: URL, prefect_url: str, deadline_seconds: float = 8) -> AsyncIterator[Spine]:
    """Spine without an API process; several on one database are like several processes."""
    engine = make_engine(database)
    try:
        with temporary_settings({PREFECT_API_URL: prefect_url}):
            async with Prefect.connect(deadline_seconds) as prefect:
                yield Spine(prefect, make_sessions(engine))
    finally:
        await engine.dispose()


@dataclass
class Line:
    """A deployment without a worker; the test sets the states of its runs."""

    stack: PrefectStack
    flow_id: str
    id: UUID

    @cached_property
    def flow_name(self) -> str:
        """The name of its flow."""
        return str(self.stack.get(f"/flows/{self.flow_id}")["name"])

    def make(self, state: str, **fields: Any) -> str:
        """Create a run in this state."""
        return self.stack.make_run(self.flow_id, state, deployment_id=str(self.id), **fields)

    def put(self, run_id: str, state: str, **details: Any) -> None:
        """Force a run into a state."""
        self.stack.post(f"/flow_runs/{run_id}/set_state", {"state": {"type": state, **details}, "force": True})

    def run_through(self, *states: str) -> str:
        """Create a run and force it through these states."""
        run_id = self.make("SCHEDULED")
        for state in states:
            self.put(run_id, state)
        return run_id

    async def read(self, spine: Spine, *run_ids: str) -> list[FlowRun]:
        """Runs as Prefect has them now."""
        return await spine.prefect.list_runs(RunFilter(runs={"id": {"any_": list(run_ids)}}), "ID_DESC")

    def copy(self, run_id: str, ends: Sequence[datetime]) -> list[str]:
        """Insert copies of a run that ended at these times directly into Prefect's database."""
        times = ("start_time", "end_time", "expected_start_time", "state_timestamp")
        with self.stack.tables() as tables:
            return tables.copy_runs(run_id, [dict.fromkeys(times, tables.time(end)) for end in ends])


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 15) -> float:
    """Wait until `condition` is true and return how long it took; fail after `seconds`."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not await condition():
        if loop.time() - began > seconds:
            raise AssertionError(f"{what}: not seen within {seconds} s")
        await asyncio.sleep(0.02)
    return loop.time() - began


def ago(**amount: float) -> datetime:
    """A moment in the past."""
    return datetime.now(UTC) - timedelta(**amount)


async def follow_forever(database: str, prefect_url: str, lease_seconds: float) -> None:
    """Follow until the process is killed."""
    follower.LEASE = timedelta(seconds=lease_seconds)
    # Three renewals in each lease, as many as there are without the shorter one.
    follower.SECONDS_BETWEEN_POLLS = lease_seconds / 3
    async with spine_on(make_url(database), prefect_url) as spine, Follower(spine.prefect, spine.sessions).running():
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(follow_forever(sys.argv[1], sys.argv[2], float(sys.argv[3])))
