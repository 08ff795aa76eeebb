"""Leases on content: while a fetch or a reader has one, the content is not deleted.

The lock order. The row of a blob is the lock of its content, and exists for as long as the file may exist:
`acquire_lease` inserts it before anything is published, and `spine.cache.garbage_collection` deletes it only together
with the file.

- A transaction that needs content (`acquire_lease`, `store_entries`) takes a lock that it shares with others of its
  kind. One that deletes content takes the lock exclusively, looks for entries and leases under it, and deletes the file
  before it commits.
- Several contents are locked in the order of their hashes.
- On PostgreSQL (READ COMMITTED: each statement sees what was committed before it) one of the two therefore waits.
  Either the deleter sees the new lease or entry and stops, or the lessee comes second, finds no row, inserts a new one
  and publishes its content again.
- SQLite has one writer at a time, and the first statement of each of these transactions is a write, so that no
  decision rests on an earlier read.
- An entry is written only while its fetch still has its leases (`store_entries`), and is deleted in a transaction of
  its own before the blob. A crash at any moment leaves at worst a file without an entry, or a blob's row without a
  file, but never an entry without its content. `spine.cache.reconciling` removes what expired leases leave behind.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.cache.statements import batches, upsert
from spine.database import SessionFactory, transaction
from spine.errors import SpineError
from spine.tables.base import utc_now
from spine.tables.cache import CacheBlob, CacheLease

log = structlog.get_logger("spine.cache")

LEASE_SECONDS = 60.0
SECONDS_BETWEEN_RENEWALS = 15.0


async def acquire_lease(session: AsyncSession, content_hash: str, holder: str, seconds: float) -> None:
    """Lease content for so many seconds; commit before publishing the content or relying on it.

    On SQLite this is a write, and belongs before any read of the same transaction.
    """
    await acquire_leases(session, [content_hash], holder, seconds)


async def acquire_leases(session: AsyncSession, content_hashes: Iterable[str], holder: str, seconds: float) -> None:
    """Lease several contents, whose rows are locked in the lock order."""
    until = utc_now() + timedelta(seconds=seconds)
    for batch in batches(sorted(set(content_hashes))):
        await _lock_shared(session, batch)
        rows = [{"content_hash": each, "holder": holder, "until": until} for each in batch]
        inserting = upsert(session, CacheLease).values(rows)
        key = ["content_hash", "holder"]
        await session.execute(inserting.on_conflict_do_update(index_elements=key, set_={"until": until}))


async def _lock_shared(session: AsyncSession, content_hashes: Sequence[str]) -> None:
    """Lock the rows of contents, shared with other lessees; insert the rows that are missing."""
    rows = select(CacheBlob.content_hash).where(CacheBlob.content_hash.in_(content_hashes))
    rows = rows.order_by(CacheBlob.content_hash).with_for_update(read=True, key_share=True)
    missing = list(content_hashes)
    # Repeated for rows that are deleted between the two statements.
    while missing:
        inserting = upsert(session, CacheBlob).values([{"content_hash": each} for each in missing])
        await session.execute(inserting.on_conflict_do_nothing())
        locked = set((await session.scalars(rows)).all())
        missing = [each for each in content_hashes if each not in locked]


async def renew_leases(session: AsyncSession, holder: str, seconds: float) -> None:
    """Extend all leases of a holder to so many seconds from now."""
    until = utc_now() + timedelta(seconds=seconds)
    await session.execute(update(CacheLease).where(CacheLease.holder == holder).values(until=until))


async def release_leases(session: AsyncSession, holder: str) -> None:
    """End all leases of a holder; safe to repeat."""
    await session.execute(delete(CacheLease).where(CacheLease.holder == holder))


class ReaderLease:
    """Renews the leases of one reader, for `LEASE_SECONDS` each time, until `end`."""

    def __init__(self, sessions: SessionFactory, holder: str) -> None:
        self._sessions = sessions
        self._holder = holder
        self._renewing = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_RENEWALS)
            try:
                async with transaction(self._sessions) as session:
                    await renew_leases(session, self._holder, LEASE_SECONDS)
            except SpineError as error:
                log.warning("cache_lease_not_renewed", reason=error.detail)

    async def end(self) -> None:
        """Release the leases. When the database is out of reach they expire."""
        self._renewing.cancel()
        await asyncio.wait([self._renewing])
        with suppress(SpineError):
            async with transaction(self._sessions) as session:
                await release_leases(session, self._holder)
