"""Putting the store and the rows in order again, after a crash or after somebody has touched the files."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import delete, select

from spine.cache.garbage_collection import (
    delete_content,
    delete_unreferenced,
    lock_content,
    remove_entries,
    to_the_end,
)
from spine.cache.statements import batches
from spine.cache.store import BlobStore
from spine.database import SessionFactory, reading, transaction
from spine.tables.base import utc_now
from spine.tables.cache import CacheBlob, CacheEntry, CacheHold


@dataclass(frozen=True)
class Reconciled:
    """What was put in order: parts of dead processes, leases that had run out, content that nobody needed (in bytes),
    blobs without a row, and entries without their blob.
    """

    parts: int
    holds: int
    unreferenced_bytes: int
    stray_blobs: int
    lost_entries: int


async def reconcile(sessions: SessionFactory, store: BlobStore) -> Reconciled:
    """Find what a crash has left and remove it; safe beside running fetches, and in several processes at once.

    A blob without a row is nobody's, as who publishes makes the row first. What is found is looked at again under the
    lock of its content before anything is removed. Raises `DatabaseUnavailable`, and `FetchFailure` when the storage is
    out of reach.
    """
    parts = await asyncio.to_thread(store.sweep)
    holds = await _end_lapsed_holds(sessions)
    unreferenced = await delete_unreferenced(sessions, store)
    # Rows come after the listing: content that is published meanwhile is in neither or only among the rows.
    listed = await asyncio.to_thread(lambda: dict(store.list()))
    strays = [each for some in batches(sorted(listed)) for each in await _without_row(sessions, some)]
    # Others may have deleted some of them since they were listed.
    stray = sum([await delete_content(sessions, store, each) == listed[each] for each in strays])
    lost = await _lose_entries(sessions, store, listed)
    return Reconciled(parts, holds, unreferenced, stray, lost)


async def _end_lapsed_holds(sessions: SessionFactory) -> int:
    lapsed = delete(CacheHold).where(CacheHold.until < utc_now()).returning(CacheHold.holder)
    async with transaction(sessions) as session:
        return len((await session.scalars(lapsed)).all())


async def _without_row(sessions: SessionFactory, hashes: Iterable[str]) -> list[str]:
    known = select(CacheBlob.content_hash).where(CacheBlob.content_hash.in_(hashes))
    async with reading(sessions) as session:
        found = set((await session.scalars(known)).all())
    return [each for each in hashes if each not in found]


async def _lose_entries(sessions: SessionFactory, store: BlobStore, listed: dict[str, int]) -> int:
    """Remove the entries whose content is not in the store, or not all of it, so that the next fetch reads anew."""
    named = select(CacheEntry.content_hash, CacheEntry.size_bytes).distinct()
    async with reading(sessions) as session:
        rows = (await session.execute(named)).all()
    suspects = [(content_hash, size) for content_hash, size in rows if listed.get(content_hash) != size]
    count = 0
    for content_hash, size in suspects:
        count += await _lose(sessions, store, content_hash, size)
        await delete_content(sessions, store, content_hash)
    return count


async def _lose(sessions: SessionFactory, store: BlobStore, content_hash: str, size: int) -> int:
    async with transaction(sessions) as session:
        await lock_content(session, content_hash)
        if await to_the_end(lambda: store.size(content_hash)) == size:
            return 0
        return await remove_entries(session, content_hash)
