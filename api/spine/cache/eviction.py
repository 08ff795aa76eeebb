"""The size limit of the cache: the least recently used content is evicted first."""

from collections.abc import Collection, Iterable

from sqlalchemy import exists, func, select

from spine.cache.garbage_collection import delete_content, delete_entries, is_leased, lock_content
from spine.cache.ownership import require_own_store
from spine.cache.store import BlobStore
from spine.database import SessionFactory, reading, transaction
from spine.tables.cache import CacheBlob, CacheEntry

# Small enough that content used in the meantime is rarely in the batch.
_BATCH_SIZE = 100


async def evict(sessions: SessionFactory, store: BlobStore, max_bytes: int, keep: Iterable[str] = ()) -> int:
    """Delete content until at most `max_bytes` remain, and return the number of bytes deleted.

    Content without an entry goes first, then the least recently used. Leased content and the contents to `keep` stay,
    so more than `max_bytes` may remain. Raises `DatabaseUnavailable`, and `FetchFailure` if the storage is
    unavailable.
    """
    await require_own_store(sessions, store)
    freed = 0
    kept = set(keep)
    # The total is read each time, because other processes may evict as well.
    while await _is_too_large(sessions, max_bytes) and (candidates := await _candidates(sessions, kept)):
        for content_hash in candidates:
            if not await _is_too_large(sessions, max_bytes):
                break
            await _delete_entries(sessions, content_hash)
            deleted = await delete_content(sessions, store, content_hash)
            if deleted is None:
                kept.add(content_hash)
            freed += deleted or 0
    return freed


async def _is_too_large(sessions: SessionFactory, max_bytes: int) -> bool:
    async with reading(sessions) as session:
        return (await session.scalar(select(func.sum(CacheBlob.size_bytes))) or 0) > max_bytes


async def _candidates(sessions: SessionFactory, kept: Collection[str]) -> list[str]:
    """A batch of contents that may be evicted, in the order of eviction."""
    has_entry = exists().where(CacheEntry.content_hash == CacheBlob.content_hash)
    free = select(CacheBlob.content_hash).where(CacheBlob.size_bytes.is_not(None), ~is_leased())
    free = free.order_by(has_entry, CacheBlob.last_used_at, CacheBlob.content_hash)
    async with reading(sessions) as session:
        # Kept contents may come before the others.
        found = (await session.scalars(free.limit(len(kept) + _BATCH_SIZE))).all()
    return [each for each in found if each not in kept]


async def _delete_entries(sessions: SessionFactory, content_hash: str) -> None:
    leased = select(exists().where(CacheBlob.content_hash == content_hash, is_leased()))
    async with transaction(sessions) as session:
        await lock_content(session, content_hash)
        if not await session.scalar(leased):
            await delete_entries(session, content_hash)
