"""Names of schedules: unique, also when several API processes create many at once.

Creating a deployment in Prefect overwrites one of the same name. A request therefore first claims the name in Spine's
table, where a second request finds it taken, then checks that Prefect has no deployment of that name, and only then
creates it. Once Prefect has the schedule, the claim is released: Prefect's own list then shows that the name is taken.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from spine.auth.callers import Caller
from spine.database import SessionFactory, reading, transaction
from spine.errors import BadRequest, Conflict, DatabaseUnavailable, FieldError, SpineError, Unavailable
from spine.names import BANNED_IN_NAMES
from spine.prefect.client import Prefect
from spine.schedules.deployments import has_schedule
from spine.tables.base import utc_now
from spine.tables.schedules import ScheduleNameClaim

# Paths below `/schedules` that are routes of their own.
RESERVED = {"preview-next"}

# Longer than the slowest creation, so that a claim expires only if its owner has died.
CLAIM_EXPIRES_AFTER = timedelta(seconds=30)


def check_name(name: str) -> None:
    """Raise `BadRequest` for a name that Prefect refuses, or that cannot be used in a URL path."""
    problem = _problem_of(name)
    if problem:
        raise BadRequest(f"The name {name!r} {problem}.", [FieldError(("body", "name"), problem)])


def _problem_of(name: str) -> str | None:
    banned = [character for character in BANNED_IN_NAMES if character in name]
    if banned:
        return f"contains {' and '.join(repr(one) for one in banned)}, which the name of a deployment must not contain"
    if name != name.strip() or not name.isprintable() or "?" in name or "#" in name or "\\" in name:
        return "begins or ends with a space, or contains a character that is not allowed in a URL path"
    if name in RESERVED or name in {".", ".."}:
        return "is reserved"
    with suppress(ValueError):
        UUID(name)
        return "is an id, so it could be confused with the id of another schedule"
    return None


@asynccontextmanager
async def claimed(sessions: SessionFactory, name: str, caller: Caller) -> AsyncIterator[None]:
    """Claim a name while the block creates its schedule. Raises `Conflict` if another request has claimed it.

    If Prefect did not respond, it may still create the schedule: the claim then stays until it expires.
    """
    await _claim(sessions, name, caller)
    try:
        yield
    except Unavailable:
        raise
    except SpineError:
        await _release(sessions, name)
        raise
    # The schedule exists; a claim that cannot be released now expires by itself.
    with suppress(DatabaseUnavailable):
        await _release(sessions, name)


async def refuse_taken(prefect: Prefect, name: str) -> None:
    """Raise `Conflict` if any deployment has this name, schedule or not: creating another would overwrite it."""
    taken = await prefect.deployments({"deployments": {"name": {"any_": [name]}}})
    if taken:
        kind = "schedule" if any(has_schedule(one) for one in taken) else "deployment"
        raise Conflict(f"A {kind} named {name!r} already exists.")


async def _claim(sessions: SessionFactory, name: str, caller: Caller) -> None:
    taken = Conflict(f"A schedule named {name!r} is being created by another request.")
    of_name = ScheduleNameClaim.name == name
    expired = ScheduleNameClaim.claimed_at < utc_now() - CLAIM_EXPIRES_AFTER
    # Read first, so that of many requests at once only a few wait for each other to write.
    async with reading(sessions) as session:
        if await session.scalar(select(ScheduleNameClaim.name).where(of_name, ~expired)):
            raise taken
    try:
        async with transaction(sessions) as session:
            await session.execute(delete(ScheduleNameClaim).where(of_name, expired))
            session.add(ScheduleNameClaim(name=name, claimed_by=caller.name))
    except IntegrityError:
        raise taken from None


async def _release(sessions: SessionFactory, name: str) -> None:
    async with transaction(sessions) as session:
        await session.execute(delete(ScheduleNameClaim).where(ScheduleNameClaim.name == name))
