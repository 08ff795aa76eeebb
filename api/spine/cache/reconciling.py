"""Repair of the cache after a crash, or after a person has changed its files."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import delete, select

from spine.cache.garbage_collection import (
    delete_content,
    delete_entries,
    delete_unreferenced,
    lock_content,
    run_to_completion,
)
from spine.cache.ownership import require_own_store
from spine.cache.statements import batches
from spine.cache.store import BlobStore
from spine.database import SessionFactory, reading, transaction
from spine.tables.base import utc_now
from spine.tables.cache import CacheBlob, CacheEntry, CacheLease


@dataclass(frozen=True)
class ReconcileResult:
    """What was removed: staging files of dead processes, expired leases, bytes of content without an entry, blobs
    without a row, and entries without their blob.
    """

    staging_files: int
    expired_leases: int
    unreferenced_bytes: int
    stray_blobs: int
    lost_entries: int


async def reconcile(sessions: SessionFactory, store: BlobStore) -> ReconcileResult:
    """Find and remove what a crash has left; safe while fetches run, and in several processes at once.

    Nothing is removed if the store is not that of the database (`StoreMismatch`).

    A blob without a row is garbage, because publishing inserts the row first. Each finding is checked again under the
    lock of its content before anything is removed. Raises `DatabaseUnavailable`, and `FetchFailure` if the storage is
    unavailable.
    """
    await require_own_store(sessions, store)
    staging_files = await asyncio.to_thread(store.sweep)
    leases = await _delete_expired_leases(sessions)
    unreferenced = await delete_unreferenced(sessions, store)
    # Rows are read after the listing, so content published in the meantime is in neither, or only among the rows.
    listed = await asyncio.to_thread(lambda: dict(store.list()))
    strays = [each for batch in batches(sorted(listed)) for each in await _without_row(sessions, batch)]
    # Another process may have deleted some of them since the listing.
    stray = sum([await delete_content(sessions, store, each) == listed[each] for each in strays])
    lost = await _delete_lost_entries(sessions, store, listed)
    return ReconcileResult(staging_files, leases, unreferenced, stray, lost)


async def _delete_expired_leases(sessions: SessionFactory) -> int:
    expired = delete(CacheLease).where(CacheLease.until < utc_now()).returning(CacheLease.holder)
    async with transaction(sessions) as session:
        return len((await session.scalars(expired)).all())


async def _without_row(sessions: SessionFactory, hashes: Iterable[str]) -> list[str]:
    known = select(CacheBlob.content_hash).where(CacheBlob.content_hash.in_(hashes))
    async with reading(sessions) as session:
        found = set((await session.scalars(known)).all())
    return [each for each in hashes if each not in found]


async def _delete_lost_entries(sessions: SessionFactory, store: BlobStore, listed: dict[str, int]) -> int:
    """Delete the entries whose content is missing from the store or incomplete; the next fetch downloads it again."""
    stored = select(CacheEntry.content_hash, CacheEntry.size_bytes).distinct()
    async with reading(sessions) as session:
        rows = (await session.execute(stored)).all()
    suspects = [(content_hash, size) for content_hash, size in rows if listed.get(content_hash) != size]
    if suspects:
        # The storage may have been unmounted since.
        await require_own_store(sessions, store)
    count = 0
    for content_hash, size in suspects:
        count += await _delete_if_lost(sessions, store, content_hash, size)
        await delete_content(sessions, store, content_hash)
    return count


async def _delete_if_lost(sessions: SessionFactory, store: BlobStore, content_hash: str, size: int) -> int:
    async with transaction(sessions) as session:
        await lock_content(session, content_hash)
        if await run_to_completion(lambda: store.size(content_hash)) == size:
            return 0
        return await delete_entries(session, content_hash)
