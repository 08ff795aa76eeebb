"""Taking content out of the cache: entries first, in a transaction of their own, then what nobody needs any more.

`spine.cache.holds` says why nothing that somebody needs is lost on the way.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import ColumnElement, delete, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.cache.statements import batches, upsert
from spine.cache.store import BlobStore
from spine.database import SessionFactory, reading, transaction
from spine.tables.base import utc_now
from spine.tables.cache import CacheBlob, CacheEntry, CacheHold
from spine.tables.sources import Source

T = TypeVar("T")


@dataclass(frozen=True)
class Cleared:
    """How many entries were removed, and how many bytes of content that nobody else needs."""

    entries: int
    bytes: int


async def clear(sessions: SessionFactory, store: BlobStore, source_id: str | None, expired_only: bool) -> Cleared:
    """Remove the entries of a source, or of all, and then the content that nothing refers to and nobody holds.

    Raises `DatabaseUnavailable`, and `FetchFailure` when the storage is out of reach.
    """
    due = [CacheEntry.expires_at <= utc_now()] if expired_only else []
    mine = [CacheEntry.source_id == source_id] if source_id is not None else []
    async with reading(sessions) as session:
        found = select(CacheEntry.source_id).where(*due, *mine).distinct().order_by(CacheEntry.source_id)
        sources = (await session.scalars(found)).all()
    count = 0
    hashes: set[str] = set()
    for each in sources:
        removed = await _clear_source(sessions, each, due)
        count += len(removed)
        hashes.update(removed)
    if source_id is None and not expired_only:
        return Cleared(count, await delete_unreferenced(sessions, store))
    return Cleared(count, await delete_all(sessions, store, hashes))


async def _clear_source(sessions: SessionFactory, source_id: str, due: list[ColumnElement[bool]]) -> list[str]:
    """Remove entries of one source, whose row is locked as for storing them; the hashes that they named."""
    removing = delete(CacheEntry).where(CacheEntry.source_id == source_id, *due).returning(CacheEntry.content_hash)
    async with transaction(sessions) as session:
        await session.execute(select(Source.id).where(Source.id == source_id).with_for_update())
        return list((await session.scalars(removing)).all())


async def delete_unreferenced(sessions: SessionFactory, store: BlobStore) -> int:
    """Delete the content that no entry names and nobody holds; how many bytes. Raises `FetchFailure`."""
    unnamed = ~exists().where(CacheEntry.content_hash == CacheBlob.content_hash)
    async with reading(sessions) as session:
        hashes = (await session.scalars(select(CacheBlob.content_hash).where(unnamed, ~is_held()))).all()
    return await delete_all(sessions, store, hashes)


def is_held() -> ColumnElement[bool]:
    """Whether somebody holds the blob that a statement is about."""
    return exists().where(CacheHold.content_hash == CacheBlob.content_hash, CacheHold.until >= utc_now())


async def delete_all(sessions: SessionFactory, store: BlobStore, hashes: Iterable[str]) -> int:
    """Delete what of these contents nobody needs; how many bytes. Raises `FetchFailure`."""
    return sum([await delete_content(sessions, store, each) or 0 for each in sorted(hashes)])


async def delete_content(sessions: SessionFactory, store: BlobStore, content_hash: str) -> int | None:
    """Delete content unless an entry names it or somebody holds it; how many bytes it had, None when it stays."""
    # Before the lock is taken, so that a storage that does not answer is met without keeping others waiting.
    size = await asyncio.to_thread(store.size, content_hash)
    async with transaction(sessions) as session:
        await lock_content(session, content_hash)
        await _end_lapsed_holds(session, content_hash)
        is_named = exists().where(CacheEntry.content_hash == content_hash)
        if await session.scalar(select(or_(is_named, exists().where(CacheHold.content_hash == content_hash)))):
            return None
        deleting = delete(CacheBlob).where(CacheBlob.content_hash == content_hash)
        written = await session.scalar(deleting.returning(CacheBlob.size_bytes))
        await to_the_end(lambda: store.delete(content_hash))
    # What was not there yet a moment ago may have been published and written down since.
    return size if size is not None else written or 0


async def lock_content(session: AsyncSession, content_hash: str) -> None:
    """Lock content exclusively, also where it has no row."""
    while True:
        making = upsert(session, CacheBlob).values(content_hash=content_hash)
        await session.execute(making.on_conflict_do_nothing())
        mine = select(CacheBlob.content_hash).where(CacheBlob.content_hash == content_hash)
        if await session.scalar(mine.with_for_update()) is not None:
            return


async def _end_lapsed_holds(session: AsyncSession, content_hash: str) -> None:
    lapsed = (CacheHold.content_hash == content_hash, CacheHold.until < utc_now())
    await session.execute(delete(CacheHold).where(*lapsed))


async def to_the_end(work: Callable[[], T]) -> T:
    """Do blocking work in a thread. When this is cancelled, wait for it: the lock must not be let go before."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        while not working.done():
            try:
                await asyncio.wait([working])
            except asyncio.CancelledError:
                continue
        raise


async def remove_entries(session: AsyncSession, content_hash: str) -> int:
    """Remove the entries of all sources that name content, which the caller has locked; how many.

    An entry that somebody is changing right now stays: waiting for it under this lock could be waiting for each other.
    """
    named = select(CacheEntry.id).where(CacheEntry.content_hash == content_hash)
    ids = (await session.scalars(named.with_for_update(skip_locked=True))).all()
    for some in batches(ids):
        await session.execute(delete(CacheEntry).where(CacheEntry.id.in_(some)))
    return len(ids)
