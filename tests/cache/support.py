"""Helpers of the tests of the cache: content stored as a fetch stores it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import uuid4

from spine.cache.entries import NewEntry, current_entries, store_entries
from spine.cache.leases import acquire_lease, release_leases
from spine.cache.store import BlobStore
from spine.database import SessionFactory
from spine.tables.base import new_id
from spine.tables.cache import CacheBlob, CacheEntry
from spine.tables.sources import Source
from sqlalchemy import select


def hash_of(content: bytes) -> str:
    return sha256(content).hexdigest()


def new_entry(key: str, content: bytes, **fields: object) -> NewEntry:
    given = {
        "key": key,
        "name": key,
        "content_hash": hash_of(content),
        "size_bytes": len(content),
        "content_type": "text/csv",
        "encoding": None,
        "validators": {},
        "rows": 1,
        "bad_rows": 0,
        **fields,
    }
    return NewEntry(**given)  # type: ignore[arg-type]


def put_blob(store: BlobStore, content: bytes) -> str:
    """Publish content in the store and return its hash."""
    file = store.stage()
    try:
        file.write(content)
        staged = file.finish()
        store.publish(file)
    finally:
        file.discard()
    return staged.content_hash


def read_blob(store: BlobStore, content_hash: str) -> bytes:
    with store.open(content_hash) as file:
        return file.read()


@dataclass
class Cache:
    """A cache on one database and one store."""

    sessions: SessionFactory
    store: BlobStore

    async def source(self) -> str:
        """A new source; its id."""
        source = Source(id=new_id(), name=f"source-{uuid4().hex[:8]}", source_type="file", config={}, enabled=True)
        async with self.sessions.begin() as session:
            session.add(source)
        return source.id

    async def name_of(self, source_id: str) -> str:
        async with self.sessions() as session:
            return str(await session.scalar(select(Source.name).where(Source.id == source_id)))

    async def lease(self, content_hash: str, holder: str, seconds: float = 60) -> None:
        async with self.sessions.begin() as session:
            await acquire_lease(session, content_hash, holder, seconds)

    async def release(self, holder: str) -> None:
        async with self.sessions.begin() as session:
            await release_leases(session, holder)

    async def fetch(self, source_id: str, *contents: bytes, expires_at: datetime | None = None) -> list[CacheEntry]:
        """Store contents as a fetch does, under the keys `0`, `1`, ..., and return the entries."""
        entries = [new_entry(str(number), content) for number, content in enumerate(contents)]
        return await self.store_content(source_id, entries, contents, expires_at)

    async def store_content(
        self,
        source_id: str,
        entries: Sequence[NewEntry],
        contents: Sequence[bytes],
        expires_at: datetime | None = None,
    ) -> list[CacheEntry]:
        fetch_id = new_id()
        for content in contents:
            await self.lease(hash_of(content), fetch_id)
            await asyncio.to_thread(put_blob, self.store, content)
        async with self.sessions.begin() as session:
            await session.execute(select(Source.id).where(Source.id == source_id).with_for_update())
            await store_entries(session, source_id, fetch_id, entries, expires_at)
            await release_leases(session, fetch_id)
        return await self.entries(source_id)

    async def entries(self, source_id: str) -> list[CacheEntry]:
        async with self.sessions() as session:
            return await current_entries(session, source_id)

    async def blobs(self) -> set[str]:
        """The hashes of all `CacheBlob` rows."""
        async with self.sessions() as session:
            return set((await session.scalars(select(CacheBlob.content_hash))).all())

    async def files(self) -> set[str]:
        """The hashes of all files in the store."""
        return await asyncio.to_thread(lambda: {name for name, _ in self.store.list()})
