"""The current content of a source for the runs that work on it, and the record of which runs used it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.auth.domains import EVERY_DOMAIN
from spine.cache.entries import NewEntry, content_hash_of, count_read, touch
from spine.cache.leases import acquire_leases
from spine.cache.statements import upsert
from spine.database import SessionFactory, transaction
from spine.sources.queries import find_source
from spine.tables.base import utc_now
from spine.tables.cache import CacheEntry
from spine.tables.sources import GOOD, Fetch, Source, SourceUse

# At most so far apart are the clocks of two machines.
_CLOCKS_DIFFER = timedelta(days=1)


@dataclass(frozen=True)
class Snapshot:
    """The content that the last successful fetch of a source brought or confirmed."""

    source: Source
    fetch_id: str
    # Identifies the content: SHA-256, hex.
    capture_id: str
    entries: Sequence[NewEntry]
    fetched_at: datetime
    # None when not every entry expires.
    expires_at: datetime | None
    # Whether it was read with the configuration that the source has now.
    is_as_configured: bool

    def is_fresh(self, max_age: timedelta | None) -> bool:
        """Whether a run may use it without a new fetch; `max_age` counts instead of `expires_at`."""
        now = utc_now()
        if not self.is_as_configured:
            return False
        if max_age is not None:
            return now - self.fetched_at <= max_age
        return self.expires_at is not None and self.expires_at > now


async def find_fresh_snapshot(
    sessions: SessionFactory, id_or_name: str, *, holder: str, seconds: float, max_age: timedelta | None = None
) -> Snapshot | None:
    """The content of a source, leased to `holder` for `seconds`; None when it is stale or missing.

    It is fresh for `max_age` after the fetch when that is given, else until its `cache_ttl_seconds` are over. It is
    stale when the source has neither, or was reconfigured since. Raises `NotFound`.
    """
    async with transaction(sessions) as session:
        found = await _read(session, await find_source(session, EVERY_DOMAIN, id_or_name))
        if found is None or not found.is_fresh(max_age):
            return None
        await _lease(session, found, holder, seconds)
        return found


async def read_snapshot(sessions: SessionFactory, id_or_name: str, *, holder: str, seconds: float) -> Snapshot | None:
    """The content of a source, fresh or not, leased to `holder` for `seconds`; None without one. Raises `NotFound`."""
    async with transaction(sessions) as session:
        found = await _read(session, await find_source(session, EVERY_DOMAIN, id_or_name))
        if found is not None:
            await _lease(session, found, holder, seconds)
        return found


async def count_hit(sessions: SessionFactory) -> None:
    """Count a read of fresh content. A read that waits for a fetch is counted by the fetch."""
    async with transaction(sessions) as session:
        await count_read(session, hit=True)


async def record_use(sessions: SessionFactory, run_id: UUID, snapshot: Snapshot) -> None:
    """Record that a flow run worked on the content of a fetch; safe to repeat."""
    use = {"run_id": run_id, "fetch_id": snapshot.fetch_id, "capture_id": snapshot.capture_id, "used_at": utc_now()}
    async with transaction(sessions) as session:
        # Several steps of one run can record the same use at the same time.
        await session.execute(upsert(session, SourceUse).values(use).on_conflict_do_nothing())


async def _read(session: AsyncSession, source: Source) -> Snapshot | None:
    """The content of a source; None unless all that its last successful fetch brought is in the cache."""
    # A time that is none would be the newest on SQLite, for ever.
    is_past = Fetch.completed_at < utc_now() + _CLOCKS_DIFFER
    good = select(Fetch.id).where(Fetch.source_id == source.id, Fetch.status.in_(GOOD), is_past)
    newest = good.order_by(Fetch.completed_at.desc(), Fetch.id.desc()).limit(1).scalar_subquery()
    # One statement, so that the fetch and the entries belong together.
    both = select(Fetch, CacheEntry).join(CacheEntry, CacheEntry.source_id == Fetch.source_id)
    found = (await session.execute(both.where(Fetch.id == newest).order_by(CacheEntry.position))).all()
    rows = [row for _, row in found]
    entries = [NewEntry.from_row(row) for row in rows]
    fetch = found[0][0] if found else None
    if fetch is None or fetch.completed_at is None or not _are_complete(entries, fetch):
        return None
    expiries = [row.expires_at for row in rows if row.expires_at is not None]
    return Snapshot(
        source=source,
        fetch_id=fetch.id,
        capture_id=fetch.content_hash or "",
        entries=entries,
        fetched_at=fetch.completed_at,
        expires_at=min(expiries) if len(expiries) == len(rows) else None,
        is_as_configured=fetch.config_version == source.config_version,
    )


def _are_complete(entries: Sequence[NewEntry], fetch: Fetch) -> bool:
    """Whether these are all entries of a fetch: the cache may have evicted some files of a source and not others."""
    # The only entry may be that of a single content, or of a pattern that matched one file.
    readings = (True, False) if len(entries) == 1 else (True,)
    return fetch.content_hash in [content_hash_of(entries, is_list=is_list) for is_list in readings]


async def _lease(session: AsyncSession, snapshot: Snapshot, holder: str, seconds: float) -> None:
    hashes = [entry.content_hash for entry in snapshot.entries]
    await acquire_leases(session, hashes, holder, seconds)
    await touch(session, hashes)
