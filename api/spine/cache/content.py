"""Content for a client: opened before the response begins, read in threads, closed at the end.

An open local file stays readable after it is deleted. In other storage the reader has a lease on the content.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO, TypeVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.auth.domains import Domains
from spine.cache.entries import touch
from spine.cache.leases import LEASE_SECONDS, ReaderLease, acquire_lease
from spine.cache.ownership import require_own_store
from spine.cache.store import BlobMissing, BlobStore
from spine.database import SessionFactory, transaction
from spine.egress.fetch_failure import FetchFailure
from spine.errors import NotFound, Unavailable
from spine.tables.base import new_id
from spine.tables.cache import CacheEntry
from spine.tables.sources import Source

T = TypeVar("T")

_CHUNK = 1024 * 1024


class Content:
    """The open content of an entry; the owner closes it."""

    def __init__(self, entry: CacheEntry, file: BinaryIO, lease: ReaderLease | None) -> None:
        self.entry = entry
        self._file = file
        self._lease = lease
        self._reading: asyncio.Future[Any] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def chunks(self, first: int, length: int) -> AsyncIterator[bytes]:
        """`length` bytes from `first` on. Raises `FetchFailure` if they cannot be read."""
        await self._in_thread(partial(self._file.seek, first))
        while length > 0:
            wanted = min(length, _CHUNK)
            chunk = await self._in_thread(partial(self._file.read, wanted))
            if not chunk:
                # The client notices that the response ends early.
                raise BlobMissing(self.entry.content_hash)
            length -= len(chunk)
            yield chunk

    async def close(self) -> None:
        """Close the file and end the lease, even if the caller is cancelled; safe to repeat."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # Kept, because `close` waits for it before it closes the file.
        reading = asyncio.ensure_future(asyncio.to_thread(work))
        self._reading = reading
        return await asyncio.shield(reading)

    async def _close(self) -> None:
        if self._reading is not None:
            await asyncio.wait([self._reading])
            # Otherwise asyncio logs that the exception was never retrieved.
            self._reading.exception()
        with suppress(FetchFailure, OSError):
            await asyncio.to_thread(self._file.close)
        if self._lease is not None:
            await self._lease.end()


async def open_content(sessions: SessionFactory, store: BlobStore, domains: Domains, entry_id: str) -> Content:
    """The content of an entry, to be read without a transaction.

    Raises `NotFound` if the entry or its content does not exist, or if its source has another domain, and `Unavailable`
    if the storage is unavailable.
    """
    holder = f"reader:{new_id()}"
    is_local = False
    async with transaction(sessions) as session:
        entry = await _find_entry(session, domains, entry_id)
        is_local = store.local_path(entry.content_hash) is not None
        if not is_local:
            await acquire_lease(session, entry.content_hash, holder, LEASE_SECONDS)
        await touch(session, [entry.content_hash])
    lease = None if is_local else ReaderLease(sessions, holder)
    try:
        return Content(entry, await asyncio.to_thread(store.open, entry.content_hash), lease)
    except BaseException as error:
        if lease is not None:
            await lease.end()
        if isinstance(error, BlobMissing):
            await _require_own_store(sessions, store)
            raise NotFound(f"{error.sentence} The next fetch of its source restores it.") from None
        if isinstance(error, FetchFailure):
            raise Unavailable(error.sentence) from None
        raise


async def _require_own_store(sessions: SessionFactory, store: BlobStore) -> None:
    try:
        await require_own_store(sessions, store)
    except FetchFailure as failure:
        raise Unavailable(failure.sentence) from None


async def _find_entry(session: AsyncSession, domains: Domains, entry_id: str) -> CacheEntry:
    entry = None
    if entry_id.isprintable():
        wanted = select(CacheEntry).join(Source, Source.id == CacheEntry.source_id)
        wanted = wanted.where(CacheEntry.id == entry_id.upper(), *domains.conditions(Source.domain))
        entry = await session.scalar(wanted)
    if entry is None:
        raise NotFound(f"No cache entry has the id {entry_id!r}.")
    return entry
