"""The limit on the size of the cache: what was used longest ago goes first."""

from collections.abc import Collection, Iterable

from sqlalchemy import exists, func, select

from spine.cache.garbage_collection import delete_content, is_held, lock_content, remove_entries
from spine.cache.store import BlobStore
from spine.database import SessionFactory, reading, transaction
from spine.tables.cache import CacheBlob, CacheEntry

# Few enough that what is used meanwhile is seldom among them.
_AT_ONCE = 100


async def evict(sessions: SessionFactory, store: BlobStore, max_bytes: int, keep: Iterable[str] = ()) -> int:
    """Delete content until no more than `max_bytes` are there; how many bytes were deleted.

    What no entry names goes first, then what was used longest ago; never what somebody holds, nor the contents to
    `keep`, so that more may stay.
    Raises `DatabaseUnavailable`, and `FetchFailure` when the storage is out of reach.
    """
    freed = 0
    stays = set(keep)
    # The sum is taken anew each time, as others may be at it, too.
    while await _is_too_large(sessions, max_bytes) and (victims := await _victims(sessions, stays)):
        for victim in victims:
            if not await _is_too_large(sessions, max_bytes):
                break
            await _give_up(sessions, victim)
            deleted = await delete_content(sessions, store, victim)
            if deleted is None:
                stays.add(victim)
            freed += deleted or 0
    return freed


async def _is_too_large(sessions: SessionFactory, max_bytes: int) -> bool:
    async with reading(sessions) as session:
        return (await session.scalar(select(func.sum(CacheBlob.size_bytes))) or 0) > max_bytes


async def _victims(sessions: SessionFactory, stays: Collection[str]) -> list[str]:
    """Some contents that may go, the first of them first."""
    is_named = exists().where(CacheEntry.content_hash == CacheBlob.content_hash)
    free = select(CacheBlob.content_hash).where(CacheBlob.size_bytes.is_not(None), ~is_held())
    free = free.order_by(is_named, CacheBlob.last_used_at, CacheBlob.content_hash)
    async with reading(sessions) as session:
        # What stays may be in front of what can go.
        candidates = (await session.scalars(free.limit(len(stays) + _AT_ONCE))).all()
    return [each for each in candidates if each not in stays]


async def _give_up(sessions: SessionFactory, content_hash: str) -> None:
    held = select(exists().where(CacheBlob.content_hash == content_hash, is_held()))
    async with transaction(sessions) as session:
        await lock_content(session, content_hash)
        if not await session.scalar(held):
            await remove_entries(session, content_hash)
