"""Deletion of content: first entries, in a transaction of their own, then content without an entry or a lease.

`spine.cache.leases` explains the lock order, by which no content in use is deleted.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import ColumnElement, delete, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.auth.domains import EVERY_DOMAIN, Domains
from spine.cache.statements import batches, upsert
from spine.cache.store import BlobStore
from spine.database import SessionFactory, reading, transaction
from spine.tables.base import utc_now
from spine.tables.cache import CacheBlob, CacheEntry, CacheLease
from spine.tables.sources import Source

T = TypeVar("T")


@dataclass(frozen=True)
class ClearResult:
    """The number of entries deleted, and of bytes of content that nothing else uses."""

    entries: int
    bytes: int


async def clear(
    sessions: SessionFactory,
    store: BlobStore,
    source_id: str | None,
    expired_only: bool,
    domains: Domains = EVERY_DOMAIN,
) -> ClearResult:
    """Delete the entries of a source, or of all of these domains, and then the content without an entry or a lease.

    Raises `DatabaseUnavailable`, and `FetchFailure` if the storage is unavailable.
    """
    expired = [CacheEntry.expires_at <= utc_now()] if expired_only else []
    of_source = [CacheEntry.source_id == source_id] if source_id is not None else []
    async with reading(sessions) as session:
        found = select(CacheEntry.source_id).join(Source, Source.id == CacheEntry.source_id)
        found = found.where(*expired, *of_source, *domains.conditions(Source.domain))
        found = found.distinct().order_by(CacheEntry.source_id)
        sources = (await session.scalars(found)).all()
    count = 0
    hashes: set[str] = set()
    for each in sources:
        deleted = await _clear_source(sessions, each, expired)
        count += len(deleted)
        hashes.update(deleted)
    if source_id is None and not expired_only and not domains.is_limited:
        return ClearResult(count, await delete_unreferenced(sessions, store))
    return ClearResult(count, await delete_contents(sessions, store, hashes))


async def _clear_source(sessions: SessionFactory, source_id: str, conditions: list[ColumnElement[bool]]) -> list[str]:
    """Delete entries of one source, with its row locked as for storing them, and return their content hashes."""
    deleting = (
        delete(CacheEntry).where(CacheEntry.source_id == source_id, *conditions).returning(CacheEntry.content_hash)
    )
    async with transaction(sessions) as session:
        await session.execute(select(Source.id).where(Source.id == source_id).with_for_update())
        return list((await session.scalars(deleting)).all())


async def delete_unreferenced(sessions: SessionFactory, store: BlobStore) -> int:
    """Delete all content without an entry or a lease, and return its bytes. Raises `FetchFailure`."""
    without_entry = ~exists().where(CacheEntry.content_hash == CacheBlob.content_hash)
    async with reading(sessions) as session:
        hashes = (await session.scalars(select(CacheBlob.content_hash).where(without_entry, ~is_leased()))).all()
    return await delete_contents(sessions, store, hashes)


def is_leased() -> ColumnElement[bool]:
    """Whether the `CacheBlob` of a statement has a lease that has not expired."""
    return exists().where(CacheLease.content_hash == CacheBlob.content_hash, CacheLease.until >= utc_now())


async def delete_contents(sessions: SessionFactory, store: BlobStore, hashes: Iterable[str]) -> int:
    """Delete those of the contents without an entry or a lease, and return their bytes. Raises `FetchFailure`."""
    return sum([await delete_content(sessions, store, each) or 0 for each in sorted(hashes)])


async def delete_content(sessions: SessionFactory, store: BlobStore, content_hash: str) -> int | None:
    """Delete content without an entry or a lease, and return its size in bytes; None if it is in use."""
    # Before the lock is taken, so that a slow storage does not block other transactions.
    size = await asyncio.to_thread(store.size, content_hash)
    async with transaction(sessions) as session:
        await lock_content(session, content_hash)
        await _delete_expired_leases(session, content_hash)
        has_entry = exists().where(CacheEntry.content_hash == content_hash)
        if await session.scalar(select(or_(has_entry, exists().where(CacheLease.content_hash == content_hash)))):
            return None
        deleting = delete(CacheBlob).where(CacheBlob.content_hash == content_hash)
        row_size = await session.scalar(deleting.returning(CacheBlob.size_bytes))
        await run_to_completion(lambda: store.delete(content_hash))
    # The content may have been published after its size was read.
    return size if size is not None else row_size or 0


async def lock_content(session: AsyncSession, content_hash: str) -> None:
    """Lock the row of content exclusively; the row is inserted if it is missing."""
    while True:
        inserting = upsert(session, CacheBlob).values(content_hash=content_hash)
        await session.execute(inserting.on_conflict_do_nothing())
        row = select(CacheBlob.content_hash).where(CacheBlob.content_hash == content_hash)
        if await session.scalar(row.with_for_update()) is not None:
            return


async def _delete_expired_leases(session: AsyncSession, content_hash: str) -> None:
    expired = (CacheLease.content_hash == content_hash, CacheLease.until < utc_now())
    await session.execute(delete(CacheLease).where(*expired))


async def run_to_completion(work: Callable[[], T]) -> T:
    """Do blocking work in a thread. If the caller is cancelled, wait for it first: the lock must outlast the work."""
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


async def delete_entries(session: AsyncSession, content_hash: str) -> int:
    """Delete the entries of all sources with this content, which the caller has locked, and return their number.

    An entry that another transaction is changing stays: waiting for it under this lock could deadlock.
    """
    entries = select(CacheEntry.id).where(CacheEntry.content_hash == content_hash)
    ids = (await session.scalars(entries.with_for_update(skip_locked=True))).all()
    for batch in batches(ids):
        await session.execute(delete(CacheEntry).where(CacheEntry.id.in_(batch)))
    return len(ids)
