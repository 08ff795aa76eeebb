"""The entries of a source: the last good content of each key, in order, with an id for each content."""

from datetime import timedelta

import pytest
from spine.cache.entries import NewEntry, count_read, store_entries, touch
from spine.cache.leases import acquire_leases
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.tables.base import new_id, utc_now
from spine.tables.cache import CacheBlob, CacheCounter, CacheEntry
from spine.tables.sources import Source
from sqlalchemy import func, select, update

from tests.cache.support import Cache, hash_of, new_entry


async def test_entries_keep_the_order_of_the_source(cache: Cache) -> None:
    source = await cache.source()
    entries = [new_entry(key, key.encode()) for key in ("b", "a", "c")]
    stored = await cache.store_content(source, entries, [b"b", b"a", b"c"])
    assert [entry.cache_key for entry in stored] == ["b", "a", "c"]
    stored = await cache.store_content(source, entries[::-1], [b"b", b"a", b"c"])
    assert [entry.cache_key for entry in stored] == ["c", "a", "b"]


async def test_all_values_of_an_entry_are_stored(cache: Cache) -> None:
    source = await cache.source()
    given = new_entry("a.csv", b"x", encoding="latin-1", validators={"etag": '"1"'}, rows=None, bad_rows=3)
    expires_at = utc_now() + timedelta(hours=1)
    (stored,) = await cache.store_content(source, [given], [b"x"], expires_at)
    assert NewEntry.from_row(stored) == given
    assert stored.expires_at == expires_at


async def test_unchanged_content_keeps_its_id_and_changed_content_gets_another(cache: Cache) -> None:
    source = await cache.source()
    before = await cache.fetch(source, b"same", b"old")
    after = await cache.fetch(source, b"same", b"new", expires_at=utc_now())
    assert after[0].id == before[0].id
    assert (after[0].cached_at, after[0].fetch_id) == (before[0].cached_at, before[0].fetch_id)
    assert after[0].expires_at is not None
    assert after[1].id != before[1].id
    assert after[1].cached_at > before[1].cached_at
    assert after[1].fetch_id not in (None, before[1].fetch_id)


async def test_entries_whose_keys_the_source_no_longer_has_are_deleted(cache: Cache) -> None:
    source, other = await cache.source(), await cache.source()
    await cache.fetch(source, b"0", b"1", b"2")
    await cache.fetch(other, b"0", b"1")
    assert [entry.content_hash for entry in await cache.fetch(source, b"0")] == [hash_of(b"0")]
    assert len(await cache.entries(other)) == 2


async def test_contents_may_be_exchanged_between_keys(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"x", b"y")
    after = await cache.fetch(source, b"y", b"x")
    assert [entry.content_hash for entry in after] == [hash_of(b"y"), hash_of(b"x")]


async def test_a_key_may_be_long_and_in_any_script(cache: Cache) -> None:
    source = await cache.source()
    keys = [
        f"{chr(0x1F600 + number % 60)}{''.join(chr(0x20000 + number * 999 + at) for at in range(999))}"
        for number in range(4)
    ]
    await cache.store_content(source, [new_entry(key, b"x") for key in keys], [b"x"])
    assert [entry.cache_key for entry in await cache.entries(source)] == keys


async def test_sizes_and_row_counts_may_exceed_32_bits(cache: Cache) -> None:
    source = await cache.source()
    (stored,) = await cache.store_content(source, [new_entry("a", b"x", size_bytes=2**40, rows=2**33)], [b"x"])
    assert (stored.size_bytes, stored.rows) == (2**40, 2**33)


@pytest.mark.slow
async def test_a_source_may_have_thousands_of_files(cache: Cache) -> None:
    source = await cache.source()
    many = [new_entry(str(number), b"%d" % (number % 1200)) for number in range(2400)]
    async with cache.sessions.begin() as session:
        await acquire_leases(session, [entry.content_hash for entry in many], "f" * 26, 60)
        await store_entries(session, source, "f" * 26, many, None)
    async with cache.sessions.begin() as session:
        await store_entries(session, source, "f" * 26, many[:1], None)
    assert len(await cache.entries(source)) == 1


async def test_content_whose_lease_was_lost_is_not_stored(cache: Cache) -> None:
    source = await cache.source()
    async with cache.sessions.begin() as session:
        session.add(CacheBlob(content_hash=hash_of(b"lost"), size_bytes=4))
    with pytest.raises(FetchFailure) as failed:
        async with cache.sessions.begin() as session:
            await store_entries(session, source, new_id(), [new_entry("a", b"lost")], None)
    assert failed.value.category is ErrorCategory.STORAGE
    assert failed.value.transient
    assert await cache.entries(source) == []


async def test_a_deleted_source_has_no_entries(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"x")
    async with cache.sessions.begin() as session:
        await session.delete(await session.get_one(Source, source))
    async with cache.sessions() as session:
        assert await session.scalar(select(func.count()).select_from(CacheEntry)) == 0


async def test_last_used_at_changes_at_most_once_a_minute(cache: Cache) -> None:
    await cache.fetch(await cache.source(), b"old", b"fresh")
    long_ago, just_now = utc_now() - timedelta(hours=1), utc_now() - timedelta(seconds=20)
    async with cache.sessions.begin() as session:
        for content, moment in ((b"old", long_ago), (b"fresh", just_now)):
            mine = CacheBlob.content_hash == hash_of(content)
            await session.execute(update(CacheBlob).where(mine).values(last_used_at=moment))
    async with cache.sessions.begin() as session:
        await touch(session, [hash_of(b"old"), hash_of(b"fresh"), "0" * 64])
    async with cache.sessions() as session:
        used = dict((await session.execute(select(CacheBlob.content_hash, CacheBlob.last_used_at))).tuples().all())
    assert used[hash_of(b"old")] > just_now
    assert used[hash_of(b"fresh")] == just_now


async def test_reads_are_counted(cache: Cache) -> None:
    for hit in (True, False, True, True):
        async with cache.sessions.begin() as session:
            await count_read(session, hit=hit)
    async with cache.sessions() as session:
        counted = dict((await session.execute(select(CacheCounter.name, CacheCounter.value))).tuples().all())
    assert counted == {"hits": 3, "misses": 1}
