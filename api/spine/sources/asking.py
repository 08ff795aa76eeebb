"""Fetches that are asked for: written down before anything is started."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.database import SessionFactory, transaction
from spine.errors import Conflict
from spine.sources.fetch_state import find_source, lease_has_expired
from spine.sources.schemas import FetchTrigger
from spine.tables.base import utc_now
from spine.tables.sources import OPEN, PENDING, Fetch, Source


@dataclass(frozen=True)
class Asked:
    """A fetch that was asked for; `joined` when an open one already does what is wanted.

    `is_started` when it has a run; who joins one without cannot know whether whoever asked for it will start it.
    """

    fetch_id: str
    source_id: str
    source_name: str
    status: str
    force: bool
    joined: bool
    is_started: bool


async def ask(
    sessions: SessionFactory, id_or_name: str, fetch_id: str, *, by: str, trigger: FetchTrigger, force: bool
) -> Asked:
    """Write down that a fetch is wanted; safe to repeat with the same `fetch_id`.

    Raises `NotFound`, and `Conflict` for a source that is disabled.
    """
    async with transaction(sessions) as session:
        source = await find_source(session, id_or_name, to_change=True)
        if not source.enabled:
            raise Conflict(f"The source {source.name!r} is disabled; enable it to fetch it.")
        fetch = await session.get(Fetch, fetch_id) or await _open_fetch(session, source, force)
        joined = fetch is not None and fetch.id != fetch_id
        if fetch is None:
            fetch = Fetch(id=fetch_id, source_id=source.id, trigger=trigger.value, triggered_by=by, force=force)
            session.add(fetch)
            fetch.status = PENDING
        elif not joined and fetch.run_id is None:
            # Starting it failed, and is tried again.
            fetch.status, fetch.error, fetch.error_category = PENDING, None, None
        is_started = fetch.run_id is not None
        return Asked(fetch.id, source.id, source.name, fetch.status, fetch.force, joined, is_started)


async def _open_fetch(session: AsyncSession, source: Source, force: bool) -> Fetch | None:
    """A fetch that is under way and brings what is wanted.

    One that is silent may bring nothing, and one that began before the source was changed something else.
    """
    mine = select(Fetch).where(Fetch.source_id == source.id, Fetch.status.in_(OPEN)).order_by(Fetch.id)
    now, versions = utc_now(), (None, source.config_version)
    for fetch in (await session.scalars(mine.with_for_update())).all():
        if not lease_has_expired(fetch, now) and (fetch.force or not force) and fetch.config_version in versions:
            return fetch
    return None


async def record_run(sessions: SessionFactory, fetch_id: str, run_id: UUID) -> None:
    """Note the flow run that was started for a fetch."""
    async with transaction(sessions) as session:
        await session.execute(update(Fetch).where(Fetch.id == fetch_id).values(run_id=run_id))
