"""Names of schedules: unique over all of them, also when many are made at once by several API processes.

Prefect's own creation overwrites a deployment of the same name. So whoever makes a schedule first claims its name in
Spine's table, where the second finds it taken, then looks whether Prefect has it, and only then creates. Once Prefect
has the schedule, the claim is given back: from then on Prefect's own list tells that the name is taken.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from spine.auth.callers import Caller
from spine.database import SessionFactory, database_errors, transaction
from spine.errors import BadRequest, Conflict, DatabaseUnavailable, FieldError, SpineError, Unavailable
from spine.names import BANNED_IN_NAMES
from spine.prefect.client import Prefect
from spine.schedules.deployments import has_schedule
from spine.tables.base import utc_now
from spine.tables.schedules import ScheduleNameClaim

# Paths below `/schedules` that are no schedules.
RESERVED = {"preview-next"}

# Longer than the slowest creation takes, so that a claim is only ever taken over from an owner that is gone.
CLAIM_LEASE = timedelta(seconds=30)


def check_name(name: str) -> None:
    """Raise `BadRequest` for a name that Prefect does not take, or that a path could not name."""
    problem = _problem_of(name)
    if problem:
        raise BadRequest(f"The name {name!r} {problem}.", [FieldError(("body", "name"), problem)])


def _problem_of(name: str) -> str | None:
    banned = [character for character in BANNED_IN_NAMES if character in name]
    if banned:
        return f"contains {' and '.join(repr(one) for one in banned)}, which names of deployments cannot"
    if name != name.strip() or not name.isprintable() or "?" in name or "#" in name or "\\" in name:
        return "begins or ends with a space, or contains a character that a path cannot carry"
    if name in RESERVED or name in {".", ".."}:
        return "is reserved"
    with suppress(ValueError):
        UUID(name)
        return "is an id; a schedule could not be told from another one by it"
    return None


@asynccontextmanager
async def claimed(sessions: SessionFactory, name: str, caller: Caller) -> AsyncIterator[None]:
    """Hold the right to make a schedule of this name. Raises `Conflict` when someone else holds it.

    When Prefect did not answer, it may still do what it was asked: the claim then stays until its lease has run out.
    """
    await _claim(sessions, name, caller)
    try:
        yield
    except Unavailable:
        raise
    except SpineError:
        await _release(sessions, name)
        raise
    # The schedule exists; a claim that cannot be given back now ends by itself.
    with suppress(DatabaseUnavailable):
        await _release(sessions, name)


async def refuse_taken(prefect: Prefect, name: str) -> None:
    """Raise `Conflict` when any deployment has this name, schedule or not: creating would overwrite it."""
    taken = await prefect.deployments({"deployments": {"name": {"any_": [name]}}})
    if taken:
        kind = "schedule" if any(has_schedule(one) for one in taken) else "deployment"
        raise Conflict(f"A {kind} named {name!r} exists already.")


async def _claim(sessions: SessionFactory, name: str, caller: Caller) -> None:
    taken = Conflict(f"A schedule named {name!r} is being made already.")
    mine, lost = ScheduleNameClaim.name == name, ScheduleNameClaim.claimed_at < utc_now() - CLAIM_LEASE
    with database_errors():
        # Looked at first, so that of many at once only a few wait for each other to write.
        async with sessions() as session:
            if await session.scalar(select(ScheduleNameClaim.name).where(mine, ~lost)):
                raise taken
        try:
            async with sessions.begin() as session:
                await session.execute(delete(ScheduleNameClaim).where(mine, lost))
                session.add(ScheduleNameClaim(name=name, claimed_by=caller.name))
        except IntegrityError:
            raise taken from None


async def _release(sessions: SessionFactory, name: str) -> None:
    async with transaction(sessions) as session:
        await session.execute(delete(ScheduleNameClaim).where(ScheduleNameClaim.name == name))
