"""Deletion of content: first entries, in a transaction of their own, then content without an entry or a lease.

`spine.cache.leases` explains the lock order, by which no content in use is deleted.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeVar

from sqlalchemy import ColumnElement, delete, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.auth.domains import EVERY_DOMAIN, Domains
from spine.cache.ownership import require_own_store
from spine.cache.statements import batches, upsert
from spine.cache.store import BlobStore
from spine.database import SessionFactory, reading, transaction
from spine.tables.base import utc_now
from spine.tables.cache import CacheBlob, CacheEntry, CacheLease
from spine.tables.sources import Source

T = TypeVar("T")

# A request deletes for about so long, and leaves the rest to maintenance.
SECONDS_OF_A_REQUEST = 4.0
# In one transaction: other fetches of the source wait for it.
_ENTRIES_AT_ONCE = 5_000


@dataclass(frozen=True)
class ClearResult:
    """The number of entries deleted, and of bytes of content that nothing else uses; and what is left.

    `entries_left` is whether there was no time for all entries, and `contents_left` the number of contents for whose
    deletion there was none; `delete_unreferenced` finds them.
    """

    entries: int
    bytes: int
    contents_left: int = 0
    entries_left: bool = False


async def clear(
    sessions: SessionFactory,
    store: BlobStore,
    source_id: str | None,
    expired_only: bool,
    domains: Domains = EVERY_DOMAIN,
    seconds: float = inf,
) -> ClearResult:
    """Delete the entries of a source, or of all of these domains, and then the content without an entry or a lease.

    It stops after about so many seconds. Raises `DatabaseUnavailable`, and `FetchFailure` if the storage is
    unavailable.
    """
    await require_own_store(sessions, store)
    until = time.monotonic() + seconds
    conditions = [CacheEntry.expires_at <= utc_now()] if expired_only else []
    of_source = [CacheEntry.source_id == source_id] if source_id is not None else []
    async with reading(sessions) as session:
        found = select(CacheEntry.source_id).join(Source, Source.id == CacheEntry.source_id)
        found = found.where(*conditions, *of_source, *domains.conditions(Source.domain))
        sources = (await session.scalars(found.distinct().order_by(CacheEntry.source_id))).all()
    deleted: list[str] = []
    for each in sources:
        if not await _clear_source(sessions, each, conditions, until, deleted):
            return ClearResult(len(deleted), 0, len(set(deleted)), entries_left=True)
    hashes = set(deleted)
    if source_id is None and not expired_only and not domains.is_limited:
        hashes.update(await _unreferenced(sessions))
    size, left = await delete_contents(sessions, store, hashes, until)
    return ClearResult(len(deleted), size, left)


async def _clear_source(
    sessions: SessionFactory, source_id: str, conditions: list[ColumnElement[bool]], until: float, deleted: list[str]
) -> bool:
    """Delete entries of one source, with its row locked as for storing them, and add their content hashes to `deleted`.

    Returns whether there was time for all of them.
    """
    some = select(CacheEntry.id).where(CacheEntry.source_id == source_id, *conditions).limit(_ENTRIES_AT_ONCE)
    deleting = delete(CacheEntry).where(CacheEntry.id.in_(some)).returning(CacheEntry.content_hash)
    while time.monotonic() < until:
        async with transaction(sessions) as session:
            await session.execute(select(Source.id).where(Source.id == source_id).with_for_update())
            hashes = (await session.scalars(deleting)).all()
        deleted += hashes
        if len(hashes) < _ENTRIES_AT_ONCE:
            return True
    return False


async def delete_unreferenced(sessions: SessionFactory, store: BlobStore, seconds: float = inf) -> int:
    """Delete content without an entry or a lease for so many seconds at most, and return its bytes.

    Raises `FetchFailure`.
    """
    until = time.monotonic() + seconds
    await require_own_store(sessions, store)
    size, _ = await delete_contents(sessions, store, await _unreferenced(sessions), until)
    return size


async def _unreferenced(sessions: SessionFactory) -> Sequence[str]:
    without_entry = ~exists().where(CacheEntry.content_hash == CacheBlob.content_hash)
    async with reading(sessions) as session:
        return (await session.scalars(select(CacheBlob.content_hash).where(without_entry, ~is_leased()))).all()


def is_leased() -> ColumnElement[bool]:
    """Whether the `CacheBlob` of a statement has a lease that has not expired."""
    return exists().where(CacheLease.content_hash == CacheBlob.content_hash, CacheLease.until >= utc_now())


async def delete_contents(
    sessions: SessionFactory, store: BlobStore, hashes: Collection[str], until: float = inf
) -> tuple[int, int]:
    """Delete those of the contents without an entry or a lease; return their bytes, and how many contents are left.

    It stops at `until`, a time of the monotonic clock. Raises `FetchFailure`.
    """
    size = 0
    for place, each in enumerate(sorted(hashes)):
        if time.monotonic() >= until:
            return size, len(hashes) - place
        size += await delete_content(sessions, store, each) or 0
    return size, 0


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
