"""Which content is deleted and which stays: on clearing, eviction, garbage collection and reconciling."""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from spine.cache import garbage_collection
from spine.cache.eviction import evict
from spine.cache.garbage_collection import ClearResult, clear, delete_entries, delete_unreferenced, lock_content
from spine.cache.leases import renew_leases
from spine.cache.maintenance import CacheMaintenance
from spine.cache.reconciling import ReconcileResult, reconcile
from spine.tables.base import utc_now
from spine.tables.cache import CacheBlob
from sqlalchemy import event, update

from tests.cache.support import Cache, hash_of, put_blob
from tests.run_history.support import until


async def assert_stored(cache: Cache, *contents: bytes) -> None:
    """Exactly these contents have a row and a file."""
    hashes = {hash_of(content) for content in contents}
    assert await cache.blobs() == hashes
    assert await cache.files() == hashes


async def set_last_used(cache: Cache, *contents: bytes) -> None:
    """Set `last_used_at` of the contents, in this order, to an hour ago."""
    moment: datetime = utc_now() - timedelta(hours=1)
    async with cache.sessions.begin() as session:
        for number, content in enumerate(contents):
            mine = update(CacheBlob).where(CacheBlob.content_hash == hash_of(content))
            await session.execute(mine.values(last_used_at=moment + timedelta(seconds=number)))


def hashes_of(contents: Sequence[bytes]) -> list[str]:
    return [hash_of(content) for content in contents]


async def test_clearing_a_source_keeps_content_that_another_source_shares(cache: Cache) -> None:
    source, other = await cache.source(), await cache.source()
    await cache.fetch(source, b"mine", b"shared")
    await cache.fetch(other, b"shared")
    assert await clear(cache.sessions, cache.store, source, False) == ClearResult(2, 4)
    await assert_stored(cache, b"shared")
    assert await cache.entries(source) == []


async def test_clearing_everything_also_deletes_content_without_an_entry(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"before")
    await cache.fetch(source, b"after!!")
    await assert_stored(cache, b"before", b"after!!")
    assert await clear(cache.sessions, cache.store, None, False) == ClearResult(1, 13)
    await assert_stored(cache)


async def test_only_expired_entries_can_be_cleared(cache: Cache) -> None:
    now = utc_now()
    sources = [await cache.source() for _ in range(3)]
    await cache.fetch(sources[0], b"over", expires_at=now - timedelta(seconds=1))
    await cache.fetch(sources[1], b"good", expires_at=now + timedelta(hours=1))
    await cache.fetch(sources[2], b"for good")
    assert await clear(cache.sessions, cache.store, None, True) == ClearResult(1, 4)
    await assert_stored(cache, b"good", b"for good")


async def test_leased_content_outlives_its_entry_until_the_lease_is_released(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"in use")
    await cache.lease(hash_of(b"in use"), "reader")
    assert await clear(cache.sessions, cache.store, source, False) == ClearResult(1, 0)
    await assert_stored(cache, b"in use")
    await cache.release("reader")
    assert await delete_unreferenced(cache.sessions, cache.store) == 6
    await assert_stored(cache)


async def test_a_lease_that_is_not_renewed_expires(cache: Cache) -> None:
    for holder, content in (("dead", b"forgotten"), ("alive", b"wanted")):
        await cache.lease(hash_of(content), holder, -1)
        put_blob(cache.store, content)
    async with cache.sessions.begin() as session:
        await renew_leases(session, "alive", 60)
    assert await delete_unreferenced(cache.sessions, cache.store) == 9
    await assert_stored(cache, b"wanted")


async def test_the_least_recently_used_content_is_evicted_first(cache: Cache) -> None:
    source = await cache.source()
    contents = (b"aaaa", b"bbbb", b"cccc", b"dddd")
    await cache.fetch(source, *contents)
    await set_last_used(cache, b"cccc", b"aaaa", b"dddd", b"bbbb")
    assert await evict(cache.sessions, cache.store, 9) == 8
    await assert_stored(cache, b"dddd", b"bbbb")
    assert [entry.content_hash for entry in await cache.entries(source)] == hashes_of([b"bbbb", b"dddd"])
    assert await evict(cache.sessions, cache.store, 8) == 0


async def test_content_without_an_entry_is_evicted_first(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"kept", b"gone")
    await cache.fetch(source, b"kept")
    await set_last_used(cache, b"kept", b"gone")
    assert await evict(cache.sessions, cache.store, 5) == 4
    await assert_stored(cache, b"kept")


async def test_content_to_keep_is_not_evicted_even_if_it_is_the_least_recently_used(cache: Cache) -> None:
    await cache.fetch(await cache.source(), b"first", b"second", b"third")
    await set_last_used(cache, b"first", b"second", b"third")
    assert await evict(cache.sessions, cache.store, 1, keep=hashes_of([b"first", b"second"])) == 5
    await assert_stored(cache, b"first", b"second")


@pytest.mark.slow
async def test_evicting_many_contents_takes_few_queries(cache: Cache) -> None:
    contents = [b"%03d" % number for number in range(210)]
    await cache.fetch(await cache.source(), *contents)
    await set_last_used(cache, *contents)
    queries = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        queries.extend([statement] if "ORDER BY" in statement and "last_used_at" in statement else [])

    engine = cache.sessions.kw["bind"].sync_engine
    event.listen(engine, "before_cursor_execute", note)
    assert await evict(cache.sessions, cache.store, 6) == 208 * 3
    event.remove(engine, "before_cursor_execute", note)
    assert len(queries) == 3
    await assert_stored(cache, *contents[-2:])


async def test_leased_content_is_never_evicted(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"first", b"second", b"third")
    await set_last_used(cache, b"first", b"second", b"third")
    await cache.lease(hash_of(b"first"), "fetch")
    await cache.lease(hash_of(b"third"), "reader")
    assert await evict(cache.sessions, cache.store, 1) == 6
    await assert_stored(cache, b"first", b"third")
    assert len(await cache.entries(source)) == 2


async def test_reconciling_removes_what_a_crash_has_left(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"good", b"lost", b"damaged", b"lost")
    cache.store.delete(hash_of(b"lost"))
    damaged = cache.store.local_path(hash_of(b"damaged"))
    assert damaged is not None
    damaged.write_bytes(b"dam")
    put_blob(cache.store, b"stray")
    await cache.lease(hash_of(b"crashed"), "dead fetch", -1)
    put_blob(cache.store, b"crashed")
    living = cache.store.stage()
    living.path.with_name("dead.part").write_bytes(b"half")
    done = await reconcile(cache.sessions, cache.store)
    living.discard()
    assert done == ReconcileResult(
        staging_files=1, expired_leases=1, unreferenced_bytes=7, stray_blobs=1, lost_entries=3
    )
    await assert_stored(cache, b"good")
    assert [entry.content_hash for entry in await cache.entries(source)] == [hash_of(b"good")]
    assert await reconcile(cache.sessions, cache.store) == ReconcileResult(0, 0, 0, 0, 0)


async def test_reconciling_spares_a_fetch_that_has_not_stored_its_entries_yet(cache: Cache) -> None:
    await cache.lease(hash_of(b"published"), "fetch")
    put_blob(cache.store, b"published")
    await cache.lease(hash_of(b"not yet published"), "fetch")
    file = cache.store.stage()
    file.write(b"not yet published")
    assert await reconcile(cache.sessions, cache.store) == ReconcileResult(0, 0, 0, 0, 0)
    assert await cache.files() == {hash_of(b"published")}
    assert len(await cache.blobs()) == 2
    cache.store.publish(file)
    file.discard()
    assert await cache.files() == {hash_of(b"published"), hash_of(b"not yet published")}


async def test_deletion_works_on_s3(s3_cache: Cache) -> None:
    cache = s3_cache
    source = await cache.source()
    await cache.fetch(source, b"aaaa", b"bbbb", b"lost")
    await set_last_used(cache, b"aaaa", b"bbbb", b"lost")
    cache.store.delete(hash_of(b"lost"))
    put_blob(cache.store, b"stray")
    done = await reconcile(cache.sessions, cache.store)
    assert (done.stray_blobs, done.lost_entries) == (1, 1)
    await assert_stored(cache, b"aaaa", b"bbbb")
    assert await evict(cache.sessions, cache.store, 4) == 4
    await assert_stored(cache, b"bbbb")
    assert await clear(cache.sessions, cache.store, source, False) == ClearResult(1, 4)
    await assert_stored(cache)


@pytest.mark.parametrize("max_bytes", [0, 3])
async def test_eviction_ends_when_all_remaining_content_is_leased(cache: Cache, max_bytes: int) -> None:
    await cache.fetch(await cache.source(), b"too large")
    await cache.lease(hash_of(b"too large"), "reader")
    assert await evict(cache.sessions, cache.store, max_bytes) == 0
    await assert_stored(cache, b"too large")


async def test_an_entry_that_is_deleted_while_a_fetch_changes_it_is_created_again(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"old")
    async with cache.sessions.begin() as session:
        await lock_content(session, hash_of(b"old"))
        assert await delete_entries(session, hash_of(b"old")) == 1
        fetching = asyncio.create_task(cache.fetch(source, b"new"))
        # Long enough to reach the lock.
        await asyncio.sleep(0.3)
    assert [entry.content_hash for entry in await fetching] == [hash_of(b"new")]


async def test_clearing_stops_after_its_time_and_says_what_is_left(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage_collection, "_ENTRIES_AT_ONCE", 10)
    source = await cache.source()
    await cache.fetch(source, *(f"{number}".encode() for number in range(25)))
    result = await clear(cache.sessions, cache.store, source, False, seconds=0)
    assert (result.entries, result.entries_left) == (0, True)
    real_delete = cache.store.delete

    def delete_slowly(content_hash: str) -> None:
        time.sleep(0.1)
        real_delete(content_hash)

    with monkeypatch.context() as slow:
        # As on a remote storage.
        slow.setattr(cache.store, "delete", delete_slowly)
        result = await clear(cache.sessions, cache.store, source, False, seconds=1)
    assert (result.entries, result.entries_left) == (25, False)
    assert 0 < result.contents_left < 25
    assert len(await cache.files()) == result.contents_left
    async with CacheMaintenance(cache.sessions, cache.store, None).running():
        await until(lambda: _is_empty(cache), "the rest to be deleted", 20)


async def test_content_that_a_request_left_is_deleted_when_maintenance_is_woken(cache: Cache) -> None:
    maintenance = CacheMaintenance(cache.sessions, cache.store, None)
    async with maintenance.running():
        await until(lambda: asyncio.to_thread(lambda: cache.store.read_marker() is not None), "the first run", 20)
        await asyncio.sleep(0.2)
        source = await cache.source()
        await cache.fetch(source, b"left")
        async with cache.sessions.begin() as session:
            await delete_entries(session, hash_of(b"left"))
        assert await cache.files()
        maintenance.wake()
        await until(lambda: _is_empty(cache), "the content to be deleted", 20)


async def _is_empty(cache: Cache) -> bool:
    return not await cache.files() and not await cache.blobs()
