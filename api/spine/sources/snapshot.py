"""The current content of a source for whoever works on it, and the record of who did."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.cache.entries import NewEntry, content_hash_of, count_read, touch
from spine.cache.leases import acquire_leases
from spine.cache.statements import upsert
from spine.database import SessionFactory, transaction
from spine.sources.fetch_state import find_source
from spine.tables.base import utc_now
from spine.tables.cache import CacheEntry
from spine.tables.sources import GOOD, Fetch, Source, SourceUse


@dataclass(frozen=True)
class Snapshot:
    """What the newest good fetch of a source brought or confirmed."""

    source: Source
    fetch_id: str
    # Names the content: SHA-256, hex.
    capture_id: str
    entries: Sequence[NewEntry]
    # Whether it was read as the source is configured now.
    is_as_configured: bool


async def find_fresh_snapshot(
    sessions: SessionFactory, id_or_name: str, *, holder: str, seconds: float, max_age: timedelta | None = None
) -> Snapshot | None:
    """The content of a source, held for `seconds`, unless it is stale; None where it is, or where there is none.

    Content is fresh until its `cache_ttl_seconds` are over, or for `max_age` after the fetch where that is given. A
    source with neither is asked each time, and so is one that was configured otherwise since. Raises `NotFound`.
    """
    async with transaction(sessions) as session:
        found = await _read(session, await find_source(session, id_or_name))
        if found is None or not _is_fresh(found, max_age):
            return None
        await _hold(session, found[0], holder, seconds)
        return found[0]


async def read_snapshot(sessions: SessionFactory, id_or_name: str, *, holder: str, seconds: float) -> Snapshot | None:
    """The content of a source as it is, held for `seconds`; None where there is none. Raises `NotFound`."""
    async with transaction(sessions) as session:
        found = await _read(session, await find_source(session, id_or_name))
        if found is None:
            return None
        await _hold(session, found[0], holder, seconds)
        return found[0]


async def count_hit(sessions: SessionFactory) -> None:
    """Count a reading of content that was fresh and there; a fetch counts for who waited for it."""
    async with transaction(sessions) as session:
        await count_read(session, hit=True)


async def record_use(sessions: SessionFactory, run_id: UUID, current: Snapshot) -> None:
    """Write down that a flow run worked on what a fetch brought; safe to repeat."""
    use = {"run_id": run_id, "fetch_id": current.fetch_id, "capture_id": current.capture_id, "used_at": utc_now()}
    async with transaction(sessions) as session:
        # Steps of the run that work on it at once note it at once, too.
        await session.execute(upsert(session, SourceUse).values(use).on_conflict_do_nothing())


async def _read(session: AsyncSession, source: Source) -> tuple[Snapshot, datetime, datetime | None] | None:
    """The content, when it was fetched, and when it expires; None where it is not all there."""
    good = select(Fetch.id).where(Fetch.source_id == source.id, Fetch.status.in_(GOOD))
    newest = good.order_by(Fetch.completed_at.desc(), Fetch.id.desc()).limit(1).scalar_subquery()
    # In one statement, so that the fetch and the entries are of one moment.
    both = select(Fetch, CacheEntry).join(CacheEntry, CacheEntry.source_id == Fetch.source_id)
    found = (await session.execute(both.where(Fetch.id == newest).order_by(CacheEntry.position))).tuples().all()
    rows = [row for _, row in found]
    entries = [NewEntry.from_row(row) for row in rows]
    fetch = found[0][0] if found else None
    if fetch is None or fetch.completed_at is None or not _are_of(entries, fetch):
        return None
    expiries = [row.expires_at for row in rows if row.expires_at is not None]
    is_as_configured = fetch.config_version == source.config_version
    current = Snapshot(source, fetch.id, fetch.content_hash or "", entries, is_as_configured)
    return current, fetch.completed_at, min(expiries) if len(expiries) == len(rows) else None


def _are_of(entries: Sequence[NewEntry], fetch: Fetch) -> bool:
    """Whether these are all that a fetch brought: the cache gives up one file of a source and not the others."""
    # A single entry can be all of a pattern, too.
    readings = (True, False) if len(entries) == 1 else (True,)
    return fetch.content_hash in [content_hash_of(entries, is_list=is_list) for is_list in readings]


def _is_fresh(found: tuple[Snapshot, datetime, datetime | None], max_age: timedelta | None) -> bool:
    current, fetched_at, expires_at = found
    now = utc_now()
    if not current.is_as_configured:
        return False
    if max_age is not None:
        return now - fetched_at <= max_age
    return expires_at is not None and expires_at > now


async def _hold(session: AsyncSession, current: Snapshot, holder: str, seconds: float) -> None:
    hashes = [entry.content_hash for entry in current.entries]
    await acquire_leases(session, hashes, holder, seconds)
    await touch(session, hashes)
