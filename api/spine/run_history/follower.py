"""The follower: one process at a time reads how runs ended, and does what else needs a watchful eye on Prefect.

Prefect's event stream wakes it; without the stream it looks every few seconds. What it finds it finds by the cursor, so
a lost event costs seconds and never an ending. Which process leads is decided by a lease in the database; that only
saves work, for recording is safe in several at once.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Protocol, cast
from uuid import UUID

from sqlalchemy import ColumnElement, CursorResult, or_, update

from spine.background import repeat
from spine.database import SessionFactory, transaction
from spine.errors import SpineError
from spine.log_throttle import LogThrottle
from spine.prefect.client import Prefect
from spine.prefect.events import Kind, listen
from spine.run_history.ingest import catch_up, read_since, record_again
from spine.run_history.outcomes import CURSOR
from spine.tables.base import new_id, utc_now
from spine.tables.run_history import FollowerCursor

LEASE = timedelta(seconds=15)
SECONDS_BETWEEN_LOOKS = 5.0
SECONDS_BETWEEN_CHORES = 2.0
SECONDS_AFTER_AN_ERROR = 3.0
# Events come in bursts, and just before their transaction can be read.
SECONDS_TO_GATHER = 0.1
SECONDS_TO_GIVE_UP_LEAD = 0.4
SECONDS_TO_STOP = 0.45
TIMES_TO_CANCEL = 3
# An event asks for what ended just now; what became visible late is for the whole looks in between.
SHORT_OVERLAP = timedelta(seconds=2)


class Chore(Protocol):
    """Something else that the leading process does regularly, and at once when there may be something to do."""

    async def run(self, prefect: Prefect, sessions: SessionFactory) -> None:
        """Do it; a `SpineError` means that it is to be done again later."""
        ...


class Follower:
    """Follows one Prefect for one database; make one for each API process.

    `chores` are done at once when a deployment has changed, those of `after_reading` when endings may have been found.
    """

    def __init__(
        self,
        prefect: Prefect,
        sessions: SessionFactory,
        chores: Sequence[Chore] = (),
        after_reading: Sequence[Chore] = (),
    ) -> None:
        self._prefect = prefect
        self._sessions = sessions
        self._chores = chores
        self._after_reading = after_reading
        self._name = new_id()
        self._log_throttle = LogThrottle("follower")
        self._leads = asyncio.Event()
        self._run_ended = asyncio.Event()
        self._was_read = asyncio.Event()
        self._deployment_changed = asyncio.Event()
        self._ended_anew: set[UUID] = set()
        self._looked_at = float("-inf")

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow in the background for as long as the block lasts; leaving it takes well below a second."""
        tasks = [
            asyncio.create_task(repeat(work, self._log_throttle, SECONDS_AFTER_AN_ERROR))
            for work in (self._read, self._follow_up, self._do_chores)
        ]
        listening = asyncio.create_task(repeat(self._listen, self._log_throttle, SECONDS_AFTER_AN_ERROR))
        try:
            yield
        finally:
            await _stop(tasks, listening)
            # A database that is down or locked is not waited for: the lease then ends by itself.
            await asyncio.wait([asyncio.create_task(self._give_up_lead())], timeout=SECONDS_TO_GIVE_UP_LEAD)

    async def _read(self) -> None:
        self._run_ended.clear()
        if await self._take_lead():
            await self._look()
            self._was_read.set()
        else:
            self._looked_at = float("-inf")
        self._log_throttle.recovered(self._read.__name__)
        await _wait(self._run_ended, SECONDS_BETWEEN_LOOKS)

    async def _look(self) -> None:
        """Read all that may be new, or after an event only what it told of if all was read a moment ago."""
        ended_anew, self._ended_anew = self._ended_anew, set()
        await record_again(self._prefect, self._sessions, ended_anew)
        now = asyncio.get_running_loop().time()
        if now - self._looked_at < SECONDS_BETWEEN_LOOKS:
            await read_since(self._prefect, self._sessions, self._take_lead, SHORT_OVERLAP)
        else:
            await catch_up(self._prefect, self._sessions, self._take_lead)
            self._looked_at = now

    async def _follow_up(self) -> None:
        await self._leads.wait()
        self._was_read.clear()
        await self._do_all(self._after_reading)
        await _wait(self._was_read, SECONDS_BETWEEN_LOOKS)

    async def _do_chores(self) -> None:
        await self._leads.wait()
        self._deployment_changed.clear()
        await self._do_all(self._chores)
        await _wait(self._deployment_changed, SECONDS_BETWEEN_CHORES)

    async def _do_all(self, chores: Sequence[Chore]) -> None:
        for chore in chores:
            name = type(chore).__name__
            try:
                await chore.run(self._prefect, self._sessions)
            except Exception as error:
                # The chores after this one have nothing to do with it.
                self._log_throttle.failed(name, error)
            else:
                self._log_throttle.recovered(name)

    async def _listen(self) -> None:
        await self._leads.wait()
        async with aclosing(listen()) as happenings:
            async for happening in happenings:
                if happening.kind is Kind.OPENED:
                    self._log_throttle.recovered(self._listen.__name__)
                if happening.run_id is not None:
                    self._ended_anew.add(happening.run_id)
                if happening.kind is not Kind.DEPLOYMENT_CHANGED:
                    self._run_ended.set()
                if happening.kind is not Kind.RUN_ENDED:
                    self._deployment_changed.set()
                if not self._leads.is_set():
                    return

    async def _take_lead(self) -> bool:
        """Take the lead or keep it, and tell whether it is ours."""
        free = or_(
            FollowerCursor.leader.is_(None),
            FollowerCursor.leader == self._name,
            FollowerCursor.leads_until < utc_now(),
        )
        if await self._set_leader(free, self._name):
            self._leads.set()
        else:
            self._leads.clear()
        return self._leads.is_set()

    async def _give_up_lead(self) -> None:
        with suppress(SpineError):
            await self._set_leader(FollowerCursor.leader == self._name, None)

    async def _set_leader(self, condition: ColumnElement[bool], leader: str | None) -> bool:
        change = update(FollowerCursor).where(FollowerCursor.name == CURSOR, condition)
        async with transaction(self._sessions) as session:
            done = await session.execute(change.values(leader=leader, leads_until=utc_now() + LEASE))
        return cast("CursorResult[Any]", done).rowcount == 1


async def _stop(tasks: Sequence[asyncio.Task[None]], listening: asyncio.Task[None]) -> None:
    """End all tasks soon: a web socket would spend ten seconds on a farewell that a busy server does not return.

    The first cancelling begins the farewell, the next one cuts it short. The others are cancelled once only: a second
    time would cut short the roll-back of a transaction, which would then keep the database locked.
    """
    for task in tasks:
        task.cancel()
    left = {listening, *tasks}
    for _ in range(TIMES_TO_CANCEL):
        listening.cancel()
        _, left = await asyncio.wait(left, timeout=SECONDS_TO_STOP / TIMES_TO_CANCEL)
        if not left:
            return


async def _wait(event: asyncio.Event, seconds: float) -> None:
    # Before Python 3.12, asyncio.wait_for can lose a cancelling that comes together with the event.
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
        await asyncio.sleep(SECONDS_TO_GATHER)
