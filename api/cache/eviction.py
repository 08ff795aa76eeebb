"""The limit on the size of the cache: what was used longest ago goes first."""

from collections.abc import Collection, Iterable

from sqlalchemy import exists, func, select

from api.cache.removal import delete_content, is_held, lock_content, remove_entries
from api.cache.store import BlobStore
from api.cache.tables import CacheBlob, CacheEntry
from api.db.engine import SessionFactory, database_errors


async def evict(sessions: SessionFactory, store: BlobStore, max_bytes: int, keep: Iterable[str] = ()) -> int:
    """Delete content until no more than `max_bytes` are there; how many bytes were deleted.

    What no entry names goes first, then what was used longest ago; never what somebody holds, nor the contents to
    `keep`, so that more may stay.
    Raises `DatabaseUnavailable`, and `FetchFailure` when the storage is out of reach.
    """
    freed = 0
    tried = set(keep)
    # The sum is taken anew each time, as others may be at it, too.
    while (victim := await _victim(sessions, max_bytes, tried)) is not None:
        tried.add(victim)
        await _give_up(sessions, victim)
        freed += await delete_content(sessions, store, victim) or 0
    return freed


async def _victim(sessions: SessionFactory, max_bytes: int, tried: Collection[str]) -> str | None:
    is_named = exists().where(CacheEntry.content_hash == CacheBlob.content_hash)
    free = select(CacheBlob.content_hash).where(CacheBlob.size_bytes.is_not(None), ~is_held())
    free = free.order_by(is_named, CacheBlob.last_used_at, CacheBlob.content_hash)
    with database_errors():
        async with sessions() as session:
            if (await session.scalar(select(func.sum(CacheBlob.size_bytes))) or 0) <= max_bytes:
                return None
            # What could not be deleted is in front of what can be.
            candidates = (await session.scalars(free.limit(len(tried) + 1))).all()
    return next((each for each in candidates if each not in tried), None)


async def _give_up(sessions: SessionFactory, content_hash: str) -> None:
    held = select(exists().where(CacheBlob.content_hash == content_hash, is_held()))
    with database_errors():
        async with sessions.begin() as session:
            await lock_content(session, content_hash)
            if not await session.scalar(held):
                await remove_entries(session, content_hash)
