"""`read_source` beside a cache that evicts content: a run gets all files of a source, never a part."""

import asyncio
import os
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from prefect import flow
from spine.cache import leases
from spine.cache.eviction import evict
from spine.cache.garbage_collection import delete_entries, lock_content
from spine.flows import staging
from spine.flows.read_source import SourceContent, read_source
from spine.tables.cache import HITS, MISSES, CacheCounter, CacheEntry
from sqlalchemy import select, update

from tests.flows.support import (
    AT_ONCE,
    MORE_ROWS,
    ROWS,
    desk_of_flows,
    fetches,
    holds,
    read_in_a_task,
    sha256,
    url_of,
    use,
)
from tests.sources.readers.support import settle
from tests.sources.support import Desk
from tests.support.receivers import Receiver, refuse


@pytest.mark.slow
async def test_a_pattern_with_an_evicted_file_is_fetched_although_it_is_fresh(desk: Desk) -> None:
    settle(desk.file("a.csv", ROWS), desk.file("b.csv", MORE_ROWS))
    name = await desk.register("file", {"path": "*.csv", "cache_ttl_seconds": 600})
    whole = use(name)[1]
    async with desk.context.sessions.begin() as session:
        await lock_content(session, sha256(ROWS))
        await delete_entries(session, sha256(ROWS))
    again = use(name)[1]
    assert [path.read_bytes() for path in again.paths] == [ROWS, MORE_ROWS]
    assert again.capture_id == whole.capture_id
    # Only the evicted file was read.
    assert [one.bytes_fetched for one in await fetches(desk, name)] == [len(ROWS + MORE_ROWS), len(ROWS)]


@pytest.mark.slow
async def test_content_larger_than_the_cache_can_be_read_by_the_run_that_fetches_it(
    desk: Desk, site: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPINE_CACHE_MAX_BYTES", str(len(ROWS) - 1))
    name = await desk.register("http", {"url": url_of(site), "cache_ttl_seconds": 600})
    for requests in (1, 2):
        assert use(name)[1].path.read_bytes() == ROWS
        assert len(site.requests) == requests
        # The next eviction removes it.
        assert await evict(desk.context.sessions, desk.context.store, len(ROWS) - 1) == len(ROWS)


async def test_steps_that_read_a_source_at_the_same_time_get_their_own_files(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS * 1000))
    name = await desk.register("file", {"path": "trades.csv", "cache_ttl_seconds": 600})
    await desk.fetch(name)

    @flow(persist_result=False)
    def use_at_once() -> list[SourceContent]:
        return [future.result() for future in [read_in_a_task.submit(name) for _ in range(6)]]

    contents = use_at_once()
    assert len({content.path for content in contents}) == 6
    assert all(content.path.read_bytes() == ROWS * 1000 for content in contents)
    (fetched,) = await fetches(desk, name)
    assert len(fetched.used_by_runs) == 1


@pytest.mark.slow
async def test_the_files_of_a_call_stay_when_the_run_reads_the_changed_source_again(desk: Desk, site: Receiver) -> None:
    name = await desk.register("http", {"url": url_of(site)})

    @flow(persist_result=False)
    def use_twice() -> list[SourceContent]:
        first = read_source(name)
        site.always = refuse(200, MORE_ROWS, ETag='"v2"')
        return [first, read_source(name)]

    contents = use_twice()
    assert [content.path.read_bytes() for content in contents] == [ROWS, MORE_ROWS]
    assert [content.capture_id for content in contents] == [sha256(ROWS), sha256(MORE_ROWS)]


async def test_writing_to_a_file_of_a_run_does_not_change_the_cache(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv", "cache_ttl_seconds": 600})
    mine = use(name)[1]
    # The file mode protects it from everyone but root.
    with suppress(PermissionError):
        mine.path.write_bytes(MORE_ROWS)
    assert await desk.content(name) == [ROWS]
    assert use(name)[1].path.read_bytes() == ROWS


@pytest.mark.slow
async def test_files_of_old_runs_are_removed_and_those_of_a_run_in_progress_are_not(desk: Desk, home: Path) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv", "cache_ttl_seconds": 600})
    old, lately = use(name)[1], use(name)[1]

    @flow(persist_result=False)
    def use_again_after_long() -> list[SourceContent]:
        first = read_source(name)
        long_ago = time.time() - staging.KEEP_SECONDS - 60
        for content in (first, old):
            os.utime(_folder_of(content, home), (long_ago, long_ago))
        return [first, read_source(name)]

    contents = use_again_after_long()
    assert [content.path.is_file() for content in [old, lately, *contents]] == [False, True, True, True]
    assert not _folder_of(old, home).exists()


def _folder_of(content: SourceContent, home: Path) -> Path:
    """The staging folder of the run that got this content."""
    staged = home / "staging"
    return staged / content.path.relative_to(staged).parts[0]


@pytest.mark.slow
async def test_content_is_leased_while_it_is_copied_and_released_when_that_fails(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv", "cache_ttl_seconds": 600})
    await desk.fetch(name)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 2.0)
    monkeypatch.setattr("spine.flows.read_source.LEASE_SECONDS", 2.0)
    monkeypatch.setattr(leases, "SECONDS_BETWEEN_RENEWALS", 0.2)
    evicted = []

    def slow_and_broken(folder: Path) -> Path:
        time.sleep(3)
        evicted.append(asyncio.run(evict_all()))
        raise OSError("no space left")

    async def evict_all() -> int:
        async with desk_of_flows() as another:
            return await evict(another.context.sessions, another.context.store, 0)

    monkeypatch.setattr(staging, "fresh", slow_and_broken)
    with pytest.raises(OSError, match="no space left"):
        use(name)
    assert evicted == [0]
    assert await holds(desk) == []


async def test_a_file_keeps_the_name_of_its_source_as_far_as_the_file_system_allows(desk: Desk) -> None:
    names = {
        "..": "content",
        ".": "content",
        "a/b.csv": "b.csv",
        f"{'a' * 300}.csv.gz": f"{'a' * 248}.csv.gz",
        f"{'ü' * 200}.csv": f"{'ü' * 125}.csv",
        f"a.{'b' * 300}": f"a.{'b' * 253}",
    }
    settle(*(desk.file(f"{number}.csv", ROWS) for number in range(len(names))))
    name = await desk.register("file", {"path": "*.csv", "cache_ttl_seconds": 600})
    await desk.fetch(name)
    async with desk.context.sessions.begin() as session:
        for position, file_name in enumerate(names):
            await session.execute(update(CacheEntry).where(CacheEntry.position == position).values(name=file_name))
    content = use(name)[1]
    assert [path.name for path in content.paths] == list(names.values())
    assert [path.read_bytes() for path in content.paths] == [ROWS] * len(names)
    # Their formats still follow from the names at their source.
    assert [file.name for file in content.files] == list(names)


async def test_a_read_without_a_download_is_a_hit_and_one_with_a_download_a_miss(desk: Desk, site: Receiver) -> None:
    name = await desk.register("http", {"url": url_of(site), "cache_ttl_seconds": 600})
    counted = []

    async def read(max_age: timedelta | None = None) -> None:
        assert use(name, max_age)[1].path.read_bytes() == ROWS
        async with desk.context.sessions() as session:
            counters = {row.name: row.value for row in await session.scalars(select(CacheCounter))}
        counted.append((counters.get(HITS, 0), counters.get(MISSES, 0)))

    await read()
    await read()
    site.behaviours = [refuse(304)]
    await read(AT_ONCE)
    # It is fresh, but missing in the cache.
    desk.context.store.delete(sha256(ROWS))
    await read()
    assert counted == [(0, 1), (1, 1), (2, 1), (2, 2)]
