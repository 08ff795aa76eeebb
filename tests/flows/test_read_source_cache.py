"""`read_source` beside a cache that gives content up: all of a source or nothing, and never half of it."""

import pytest
from prefect import flow

from api.cache.eviction import evict
from api.cache.removal import lock_content, remove_entries
from flows.sources import SourceContent, read_source
from tests.flows.support import MORE_ROWS, ROWS, fetches, read_in_a_task, sha256, url_of, use
from tests.sources.reading.support import settle
from tests.sources.support import Desk
from tests.support.receivers import Receiver, refuse


async def test_a_pattern_of_which_the_cache_gave_up_one_file_is_fetched_although_it_is_fresh(desk: Desk) -> None:
    settle(desk.file("a.csv", ROWS), desk.file("b.csv", MORE_ROWS))
    name = await desk.register("file", {"path": "*.csv", "cache_ttl_seconds": 600})
    whole = use(name)[1]
    async with desk.shop.sessions.begin() as session:
        await lock_content(session, sha256(ROWS))
        await remove_entries(session, sha256(ROWS))
    again = use(name)[1]
    assert [path.read_bytes() for path in again.paths] == [ROWS, MORE_ROWS]
    assert again.capture_id == whole.capture_id
    # Only what was given up was read.
    assert [one.bytes_fetched for one in await fetches(desk, name)] == [len(ROWS + MORE_ROWS), len(ROWS)]


async def test_content_larger_than_the_cache_can_be_read_by_the_run_that_has_it_fetched(
    desk: Desk, site: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPINE_CACHE_MAX_BYTES", str(len(ROWS) - 1))
    name = await desk.register("http", {"url": url_of(site), "cache_ttl_seconds": 600})
    for requests in (1, 2):
        assert use(name)[1].path.read_bytes() == ROWS
        assert len(site.requests) == requests
        # The next one who tidies up takes it.
        assert await evict(desk.shop.sessions, desk.shop.store, len(ROWS) - 1) == len(ROWS)


async def test_steps_that_read_a_source_at_once_do_not_take_each_others_files(desk: Desk) -> None:
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


async def test_what_a_run_was_given_stays_when_it_reads_the_source_again_and_that_has_changed(
    desk: Desk, site: Receiver
) -> None:
    name = await desk.register("http", {"url": url_of(site)})

    @flow(persist_result=False)
    def use_twice() -> list[SourceContent]:
        first = read_source(name)
        site.always = refuse(200, MORE_ROWS, ETag='"v2"')
        return [first, read_source(name)]

    contents = use_twice()
    assert [content.path.read_bytes() for content in contents] == [ROWS, MORE_ROWS]
    assert [content.capture_id for content in contents] == [sha256(ROWS), sha256(MORE_ROWS)]
