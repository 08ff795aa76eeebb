"""Deleting content while fetches store it: no entry ever refers to missing content."""

import asyncio
import random
import threading
from contextlib import suppress

import pytest
from spine.cache.eviction import evict
from spine.cache.garbage_collection import clear, delete_unreferenced
from spine.cache.reconciling import reconcile
from spine.cache.store import BlobStore
from spine.database import transaction
from spine.errors import DatabaseUnavailable
from spine.tables.cache import CacheBlob, CacheEntry
from sqlalchemy import select, update

from tests.cache.support import Cache, hash_of, put_blob

ROUNDS = {"local": 12, "s3": 6}
# Few, so that all fetch and delete the same contents, but more than one fetch leases at once.
CONTENTS = [b"%d" % number * 1000 for number in range(8)]


class Race:
    """Concurrent fetches of the same contents, while others delete as much as they can."""

    def __init__(self, cache: Cache, rounds: int) -> None:
        self.cache = cache
        self.rounds = rounds
        self.over = asyncio.Event()
        self.removed = 0

    async def fetch(self, source: str) -> None:
        for number in range(20 * self.rounds):
            if number >= self.rounds and self.removed:
                return
            contents = random.sample(CONTENTS, 2)
            try:
                await self.cache.fetch(source, *contents)
            except DatabaseUnavailable:
                # SQLite was busy; nothing was written.
                continue

    async def remove(self, source: str) -> None:
        while not self.over.is_set():
            way = random.choice(("all", "one", "unreferenced", "evict", "reconcile"))
            sessions, store = self.cache.sessions, self.cache.store
            if way == "all":
                self.removed += (await clear(sessions, store, None, False)).bytes
            elif way == "one":
                self.removed += (await clear(sessions, store, source, False)).bytes
            elif way == "unreferenced":
                self.removed += await delete_unreferenced(sessions, store)
            elif way == "evict":
                self.removed += await evict(sessions, store, 1000)
            else:
                assert (await reconcile(sessions, store)).lost_entries == 0
            await asyncio.sleep(0)

    async def check(self) -> None:
        """Under the lock of each content with an entry, its file must exist."""
        while not self.over.is_set():
            for content in CONTENTS:
                # SQLite was busy; the next check suffices.
                with suppress(DatabaseUnavailable):
                    await self._check_content(content)
            await asyncio.sleep(0.005)

    async def _check_content(self, content: bytes) -> None:
        async with transaction(self.cache.sessions) as session:
            # A write first, for SQLite; deleting content needs this lock, too.
            row = update(CacheBlob).where(CacheBlob.content_hash == hash_of(content))
            await session.execute(row.values(size_bytes=CacheBlob.size_bytes))
            entries = select(CacheEntry.id).where(CacheEntry.content_hash == hash_of(content))
            if await session.scalar(entries.limit(1)):
                assert self.cache.store.size(hash_of(content)) == len(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("database_url", "kind"),
    [("sqlite", "local"), ("postgresql", "local"), ("postgresql", "s3")],
    indirect=["database_url"],
)
async def test_no_entry_ever_refers_to_missing_content(cache: Cache, kind: str, request: pytest.FixtureRequest) -> None:
    cache = Cache(cache.sessions, request.getfixturevalue(f"{kind}_store"))
    race = Race(cache, ROUNDS[kind])
    sources = [await cache.source() for _ in range(4)]
    others = [asyncio.create_task(race.remove(sources[0])) for _ in range(2)]
    others.append(asyncio.create_task(race.check()))
    await asyncio.gather(*(race.fetch(source) for source in sources))
    race.over.set()
    await asyncio.gather(*others)
    assert race.removed > 0
    for source in sources:
        for entry in await cache.entries(source):
            assert cache.store.size(entry.content_hash) == entry.size_bytes
    # Nothing is left over.
    await clear(cache.sessions, cache.store, None, False)
    assert await cache.files() == set()
    assert await cache.blobs() == set()


class SlowStore(BlobStore):
    """A store whose deletes wait for a signal."""

    def __init__(self, store: BlobStore) -> None:
        super().__init__(store._staging, store._blobs)
        self.began, self.proceed = threading.Event(), threading.Event()

    def delete(self, content_hash: str) -> None:
        self.began.set()
        assert self.proceed.wait(10)
        super().delete(content_hash)


@pytest.mark.parametrize("cancelled", [False, True], ids=["completed", "cancelled"])
async def test_content_cannot_be_leased_while_its_file_is_being_deleted(cache: Cache, cancelled: bool) -> None:
    store = SlowStore(cache.store)
    source = await cache.source()
    await cache.fetch(source, b"wanted again")
    deleting = asyncio.create_task(clear(cache.sessions, store, source, False))
    await asyncio.to_thread(store.began.wait)
    if cancelled:
        deleting.cancel()
    leasing = asyncio.create_task(cache.lease(hash_of(b"wanted again"), "fetch"))
    # Long enough to reach the lock.
    await asyncio.wait([leasing], timeout=0.3)
    assert not leasing.done()
    store.proceed.set()
    await asyncio.wait([deleting, leasing])
    assert deleting.cancelled() is cancelled
    put_blob(cache.store, b"wanted again")
    await clear(cache.sessions, cache.store, None, False)
    assert await cache.files() == {hash_of(b"wanted again")}
