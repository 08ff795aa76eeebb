"""The current content of a source for its readers: all that one fetch brought, or nothing."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from spine.auth.domains import EVERY_DOMAIN
from spine.cache.eviction import evict
from spine.cache.garbage_collection import delete_entries, lock_content
from spine.sources.cache_queries import read_stats
from spine.sources.snapshot import Snapshot, find_fresh_snapshot, read_snapshot, record_use
from spine.tables.base import utc_now
from spine.tables.cache import CacheBlob, CacheLease
from spine.workflows.run_detail import capture_used
from sqlalchemy import delete, update

from tests.cache.support import hash_of
from tests.sources.readers.support import settle
from tests.sources.support import Desk

ROWS = b"day,venue\n2026-01-05,AAA\n"
MORE_ROWS = ROWS + b"2026-01-05,BBB\n"


async def read(desk: Desk, name: str) -> Snapshot | None:
    return await read_snapshot(desk.context.sessions, name, holder=uuid4().hex, seconds=60)


async def find(desk: Desk, name: str) -> Snapshot | None:
    return await find_fresh_snapshot(desk.context.sessions, name, holder=uuid4().hex, seconds=60)


async def remove(desk: Desk, content: bytes) -> None:
    """Remove content as eviction and reconciling do."""
    async with desk.context.sessions.begin() as session:
        await lock_content(session, hash_of(content))
        await delete_entries(session, hash_of(content))


async def test_a_pattern_with_an_evicted_file_has_no_snapshot(desk: Desk) -> None:
    settle(desk.file("a.csv", ROWS), desk.file("b.csv", MORE_ROWS))
    name = await desk.register("file", {"path": "*.csv", "cache_ttl_seconds": 600})
    fetched = await desk.fetch(name)
    for current in (await read(desk, name), await find(desk, name)):
        assert current is not None
        assert (current.fetch_id, current.capture_id) == (fetched.id, fetched.content_hash)
        assert [entry.name for entry in current.entries] == ["a.csv", "b.csv"]
    await remove(desk, MORE_ROWS)
    assert (await read(desk, name), await find(desk, name)) == (None, None)
    await desk.fetch(name)
    current = await find(desk, name)
    assert current is not None
    assert [entry.name for entry in current.entries] == ["a.csv", "b.csv"]


async def test_a_pattern_that_matches_one_file_has_a_snapshot(desk: Desk) -> None:
    settle(desk.file("a.csv", ROWS))
    name = await desk.register("file", {"path": "*.csv", "cache_ttl_seconds": 600})
    fetched = await desk.fetch(name)
    current = await find(desk, name)
    assert current is not None
    assert current.capture_id == fetched.content_hash != hash_of(ROWS)


@pytest.mark.slow
async def test_a_reader_beside_fetches_gets_each_content_with_its_own_capture_id(desk: Desk) -> None:
    name = await desk.register("file", {"path": "a.csv", "cache_ttl_seconds": 600})
    settle(desk.file("a.csv", ROWS))
    await desk.fetch(name)
    is_over = asyncio.Event()

    async def look() -> int:
        looks = 0
        while not is_over.is_set():
            current = await read(desk, name)
            assert current is not None
            assert current.capture_id == current.entries[0].content_hash
            looks += 1
        return looks

    looking = [asyncio.create_task(look()) for _ in range(2)]
    for number in range(15):
        settle(desk.file("a.csv", ROWS * (number + 2)))
        await desk.fetch(name, force=True)
    is_over.set()
    assert sum(await asyncio.gather(*looking)) > 15


async def test_reading_a_snapshot_counts_as_use_for_eviction(desk: Desk) -> None:
    settle(desk.file("read.csv", ROWS), desk.file("found.csv", MORE_ROWS), desk.file("idle.csv", b"day\n"))
    names = []
    for file in ("read.csv", "found.csv", "idle.csv"):
        names.append(await desk.register("file", {"path": file, "cache_ttl_seconds": 600}))
        await desk.fetch(names[-1])
    async with desk.context.sessions.begin() as session:
        # The contents that are read below were used less recently than the one that is not.
        for content, minutes in ((ROWS, 30), (MORE_ROWS, 20), (b"day\n", 10)):
            mine = update(CacheBlob).where(CacheBlob.content_hash == hash_of(content))
            await session.execute(mine.values(last_used_at=utc_now() - timedelta(minutes=minutes)))
    for current in (await read(desk, names[0]), await find(desk, names[1])):
        assert current is not None
    async with desk.context.sessions.begin() as session:
        await session.execute(delete(CacheLease))
    assert await evict(desk.context.sessions, desk.context.store, len(ROWS + MORE_ROWS)) == len(b"day\n")
    assert [await desk.content(name) for name in names] == [[ROWS], [MORE_ROWS], []]


async def test_the_download_of_an_empty_file_is_a_miss_and_an_unchanged_one_is_a_hit(desk: Desk) -> None:
    settle(desk.file("empty.bin", b""))
    name = await desk.register("file", {"path": "empty.bin"})
    for hit_rate in (0, 1 / 2):
        assert (await desk.fetch(name)).bytes_fetched == 0
        async with desk.context.sessions() as session:
            assert (await read_stats(session, EVERY_DOMAIN)).hit_rate == hit_rate


async def test_a_use_that_several_steps_record_at_once_is_recorded_once(desk: Desk) -> None:
    settle(desk.file("a.csv", ROWS))
    name = await desk.register("file", {"path": "a.csv"})
    fetched = await desk.fetch(name)
    current = await read(desk, name)
    assert current is not None
    run_id = uuid4()
    await asyncio.gather(*(record_use(desk.context.sessions, run_id, current) for _ in range(8)))
    assert (await desk.read_fetch(fetched.id)).used_by_runs == [str(run_id)]
    async with desk.context.sessions() as session:
        assert await capture_used(session, run_id) == hash_of(ROWS)
        assert await capture_used(session, uuid4()) is None


async def test_content_larger_than_the_cache_can_be_read_until_the_next_eviction(desk: Desk) -> None:
    settings = desk.context.settings.model_copy(update={"cache_max_bytes": len(ROWS) - 1})
    desk = Desk(replace(desk.context, settings=settings), desk.root)
    settle(desk.file("large.csv", ROWS), desk.file("small.csv", b"day\n"))
    large, small = [await desk.register("file", {"path": f"{name}.csv"}) for name in ("large", "small")]
    await desk.fetch(large)
    assert await desk.content(large) == [ROWS]
    await desk.fetch(small)
    assert await read(desk, large) is None
    assert await desk.content(small) == [b"day\n"]
