"""The follower: one process at a time records the outcomes of runs and does the other chores that watch Prefect.

Prefect's event stream wakes it; without the stream it polls every few seconds. It reads outcomes from a cursor, so a
lost event delays an outcome by seconds and never loses it. A lease in the database decides which process follows. The
lease only saves work: recording is safe in several processes at once.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Never, Protocol, cast
from uuid import UUID

from sqlalchemy import ColumnElement, CursorResult, or_, update

from spine.actors import Actor, ActorKind
from spine.audit.trail import Trail, acting_as
from spine.background import repeat, stop_stream
from spine.database import SessionFactory, transaction
from spine.errors import SpineError
from spine.log_throttle import Failing, LogThrottle
from spine.prefect.client import Prefect
from spine.prefect.events import Kind, listen
from spine.run_history.ingest import CheckRuns, catch_up, check_nothing, ingest_new, refresh_outcomes
from spine.run_history.outcomes import CURSOR
from spine.tables.base import new_id, utc_now
from spine.tables.run_history import FollowerCursor

LEASE = timedelta(seconds=15)
LONGEST_LEASE = timedelta(days=1)
SECONDS_BETWEEN_POLLS = 5.0
SECONDS_BETWEEN_CHORES = 2.0
SECONDS_AFTER_AN_ERROR = 3.0
# Events come in bursts, and just before their transaction can be read.
SECONDS_TO_GATHER = 0.1
SECONDS_TO_RELEASE_LEASE = 0.4
SECONDS_TO_STOP = 0.45
# An event announces a run that ended just now; runs that became visible late are found by the next full read.
SHORT_OVERLAP = timedelta(seconds=2)


class Chore(Protocol):
    """Another task of the process that follows, run regularly and as soon as there may be something to do."""

    async def run(self, prefect: Prefect, sessions: SessionFactory) -> None:
        """Do it once; after a `SpineError` it is repeated later."""
        ...


def following(sessions: SessionFactory) -> AbstractContextManager[None]:
    """Attributes what the block changes to the follower."""
    return acting_as(Actor("spine.follower", ActorKind.SYSTEM), Trail(sessions))


class Follower:
    """Follows one Prefect server for one database; make one for each API process.

    `chores` run as soon as a deployment has changed, `after_ingest` as soon as new outcomes may have been recorded;
    `check` looks at runs before their outcomes are recorded.
    """

    def __init__(
        self,
        prefect: Prefect,
        sessions: SessionFactory,
        chores: Sequence[Chore] = (),
        after_ingest: Sequence[Chore] = (),
        check: CheckRuns = check_nothing,
    ) -> None:
        self._prefect = prefect
        self._sessions = sessions
        self._chores = chores
        self._after_ingest = after_ingest
        self._check = check
        self._name = new_id()
        self._log_throttle = LogThrottle("follower")
        self._has_lease = asyncio.Event()
        self._run_ended = asyncio.Event()
        self._ingested = asyncio.Event()
        self._deployment_changed = asyncio.Event()
        self._ended_again: set[UUID] = set()
        self._last_full_read = float("-inf")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow in the background for as long as the block lasts; leaving it takes well below a second."""
        # The tasks inherit whom their changes are attributed to.
        with following(self._sessions):
            tasks = [
                asyncio.create_task(repeat(work, self._log_throttle, SECONDS_AFTER_AN_ERROR))
                for work in (self._ingest, self._run_after_ingest, self._run_chores)
            ]
        listening = asyncio.create_task(repeat(self._listen, self._log_throttle, SECONDS_AFTER_AN_ERROR))
        try:
            yield
        finally:
            await _stop(tasks, listening)
            # Do not wait for a database that is down or locked: the lease then expires by itself.
            await asyncio.wait([asyncio.create_task(self._release_lease())], timeout=SECONDS_TO_RELEASE_LEASE)

    def leads(self) -> bool:
        """Whether this process has the lease."""
        return self._has_lease.is_set()

    def failing(self) -> list[Failing]:
        """The tasks of this process that fail now; the event stream does not count, because polling replaces it."""
        return [one for one in self._log_throttle.failing() if one.task != self._listen.__name__]

    async def _ingest(self) -> None:
        self._run_ended.clear()
        if await self._acquire_lease():
            await self._read_outcomes()
            self._ingested.set()
        else:
            self._last_full_read = float("-inf")
        self._log_throttle.recovered(self._ingest.__name__)
        await _wait(self._run_ended, SECONDS_BETWEEN_POLLS)

    async def _read_outcomes(self) -> None:
        """Read everything that may be new, or only the latest outcomes if the last full read was a moment ago."""
        ended_again, self._ended_again = self._ended_again, set()
        await refresh_outcomes(self._prefect, self._sessions, ended_again, self._check)
        now = asyncio.get_running_loop().time()
        if now - self._last_full_read < SECONDS_BETWEEN_POLLS:
            await ingest_new(self._prefect, self._sessions, self._acquire_lease, SHORT_OVERLAP, self._check)
        else:
            await catch_up(self._prefect, self._sessions, self._acquire_lease, self._check)
            self._last_full_read = now

    async def _run_after_ingest(self) -> None:
        await self._has_lease.wait()
        self._ingested.clear()
        await self._run_all(self._after_ingest)
        await _wait(self._ingested, SECONDS_BETWEEN_POLLS)

    async def _run_chores(self) -> None:
        await self._has_lease.wait()
        self._deployment_changed.clear()
        await self._run_all(self._chores)
        await _wait(self._deployment_changed, SECONDS_BETWEEN_CHORES)

    async def _run_all(self, chores: Sequence[Chore]) -> None:
        for chore in chores:
            name = type(chore).__name__
            try:
                await chore.run(self._prefect, self._sessions)
            except Exception as error:
                # The following chores do not depend on this one.
                self._log_throttle.failed(name, error)
            else:
                self._log_throttle.recovered(name)

    async def _listen(self) -> None:
        await self._has_lease.wait()
        async with aclosing(listen()) as events:
            async for event in events:
                if event.kind is Kind.OPENED:
                    self._log_throttle.recovered(self._listen.__name__)
                if event.run_id is not None:
                    self._ended_again.add(event.run_id)
                if event.kind is not Kind.DEPLOYMENT_CHANGED:
                    self._run_ended.set()
                if event.kind is not Kind.RUN_ENDED:
                    self._deployment_changed.set()
                if not self._has_lease.is_set():
                    return

    async def _acquire_lease(self) -> bool:
        """Acquire or renew the lease; return whether this process has it."""
        available = or_(
            FollowerCursor.lease_owner.is_(None),
            FollowerCursor.lease_owner == self._name,
            FollowerCursor.lease_expires_at < utc_now(),
            # Nobody has written this: it is no time, or an endless one.
            FollowerCursor.lease_expires_at > utc_now() + LONGEST_LEASE,
        )
        if await self._set_lease_owner(available, self._name):
            self._has_lease.set()
        else:
            self._has_lease.clear()
        return self._has_lease.is_set()

    async def _release_lease(self) -> None:
        with suppress(SpineError):
            await self._set_lease_owner(FollowerCursor.lease_owner == self._name, None)

    async def _set_lease_owner(self, condition: ColumnElement[bool], owner: str | None) -> bool:
        change = update(FollowerCursor).where(FollowerCursor.name == CURSOR, condition)
        async with transaction(self._sessions) as session:
            done = await session.execute(change.values(lease_owner=owner, lease_expires_at=utc_now() + LEASE))
        return cast("CursorResult[Any]", done).rowcount == 1


async def _stop(tasks: Sequence[asyncio.Task[Never]], listening: asyncio.Task[Never]) -> None:
    """Stop all tasks within `SECONDS_TO_STOP`.

    All but the stream are cancelled only once: a second cancellation would interrupt a rollback, and the database would
    stay locked.
    """
    for task in tasks:
        task.cancel()
    await asyncio.gather(stop_stream(listening, SECONDS_TO_STOP), asyncio.wait(tasks, timeout=SECONDS_TO_STOP))


async def _wait(event: asyncio.Event, seconds: float) -> None:
    # Before Python 3.12, asyncio.wait_for can lose a cancellation that comes together with the event.
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
        await asyncio.sleep(SECONDS_TO_GATHER)
