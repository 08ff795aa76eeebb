"""A source that is changed while it is read: content from before the change does not count as current."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from spine.sources.fetch_requests import record_request
from spine.sources.fetch_state import OpenFetch
from spine.sources.snapshot import Snapshot, find_fresh_snapshot

from tests.sources.readers.support import settle
from tests.sources.support import Desk
from tests.sources.test_one_at_a_time import first_request
from tests.support.receivers import Behaviour, Handler, Receiver, receiver

ROWS = b"day,venue\n2026-01-05,AAA\n"
OTHER_ROWS = b"day,venue\n2026-01-05,AAA\n2026-01-05,BBB\n"
NO_HEADER = {"has_header": False}


def tagged(body: bytes, free: threading.Event | None = None) -> Behaviour:
    """Respond once `free` is set: with an ETag, or with 304 to a client that has this content."""

    def behave(handler: Handler) -> None:
        assert free is None or free.wait(30)
        if handler.headers["If-None-Match"] == '"v1"':
            handler.answer(304)
        else:
            handler.answer(200, body, {"ETag": '"v1"'})

    return behave


@pytest.fixture
def site() -> Iterator[Receiver]:
    with receiver() as started:
        started.always = tagged(ROWS)
        yield started


async def source_at(site: Receiver, desk: Desk) -> str:
    return await desk.register("http", {"url": f"http://127.0.0.1:{site.port}/a.csv"})


async def request(desk: Desk, name: str, fetch_id: str) -> OpenFetch:
    return await record_request(desk.context.sessions, name, fetch_id, by="tests", force=False)


async def current(desk: Desk, name: str, max_age: timedelta | None = None) -> Snapshot | None:
    return await find_fresh_snapshot(desk.context.sessions, name, holder="reader", seconds=60, max_age=max_age)


async def test_content_read_before_a_change_does_not_count_as_unchanged_after_it(desk: Desk, site: Receiver) -> None:
    free = threading.Event()
    site.behaviours = [tagged(ROWS, free)]
    name = await source_at(site, desk)
    reading = asyncio.create_task(desk.fetch(name))
    await first_request(site)
    await desk.update(name, parser_config=NO_HEADER)
    free.set()
    before = await reading
    assert (before.status, before.rows_parsed) == ("SUCCESS", 1)
    after = await desk.fetch(name)
    assert (after.bytes_fetched, after.rows_parsed, after.content_changed) == (len(ROWS), 2, False)
    # The next fetch sends validators again, and the source is unchanged.
    assert (await desk.fetch(name)).bytes_fetched == 0


async def test_a_fetch_that_waits_while_the_source_is_changed_reads_for_itself(desk: Desk, site: Receiver) -> None:
    free = threading.Event()
    site.behaviours = [tagged(ROWS, free)]
    name = await source_at(site, desk)
    first = asyncio.create_task(desk.fetch(name))
    await first_request(site)
    second = asyncio.create_task(desk.fetch(name))
    await asyncio.sleep(0.3)
    await desk.update(name, parser_config=NO_HEADER)
    free.set()
    assert [(await fetch).rows_parsed for fetch in (first, second)] == [1, 2]
    assert len(site.requests) == 2


async def test_a_request_after_a_change_does_not_join_a_fetch_that_started_before_it(desk: Desk) -> None:
    name = await desk.register("file", {"path": "a.csv"})
    waiting = await request(desk, name, "01J00000000000000000000001")
    await desk.update(name, config={"path": "b.csv"})
    # It has not started yet, and will use the new configuration.
    assert (await request(desk, name, "01J00000000000000000000002")).fetch_id == waiting.fetch_id

    name = await desk.register("file", {"path": "a.csv"})
    started = await desk.start(name)
    assert (await request(desk, name, "01J00000000000000000000003")).fetch_id == started.fetch_id
    await desk.update(name, domain="desk.rates")
    assert (await request(desk, name, "01J00000000000000000000003")).fetch_id == started.fetch_id
    await desk.update(name, parser_type="csv")
    assert (await request(desk, name, "01J00000000000000000000003")).fetch_id == "01J00000000000000000000003"


@pytest.mark.parametrize("max_age", [None, timedelta(hours=1)])
async def test_content_read_with_an_older_configuration_is_never_fresh(desk: Desk, max_age: timedelta | None) -> None:
    settle(desk.file("a.csv", ROWS), desk.file("b.csv", OTHER_ROWS))
    name = await desk.register("file", {"path": "a.csv", "cache_ttl_seconds": 3600})
    first = await desk.fetch(name)
    found = await current(desk, name, max_age)
    assert found is not None
    assert found.fetch_id == first.id
    await desk.update(name, config={"path": "b.csv", "cache_ttl_seconds": 3600})
    assert await current(desk, name, max_age) is None
    second = await desk.fetch(name)
    found = await current(desk, name, max_age)
    assert found is not None
    assert (found.fetch_id, found.capture_id) == (second.id, second.content_hash)


async def test_content_read_while_the_configuration_changed_is_not_fresh(desk: Desk, site: Receiver) -> None:
    free = threading.Event()
    site.behaviours = [tagged(ROWS, free)]
    config = {"url": f"http://127.0.0.1:{site.port}/a.csv", "cache_ttl_seconds": 3600}
    name = await desk.register("http", config)
    reading = asyncio.create_task(desk.fetch(name))
    await first_request(site)
    await desk.update(name, config={**config, "url": f"http://127.0.0.1:{site.port}/b.csv"})
    free.set()
    assert (await reading).status == "SUCCESS"
    assert await current(desk, name) is None


async def test_a_change_to_what_is_so_already_keeps_the_content_current(desk: Desk, site: Receiver) -> None:
    name = await source_at(site, desk)
    await desk.fetch(name)
    before = await desk.source(name)
    await desk.update(name, config=before.config, parser_type=None, parser_config=None)
    assert (await desk.source(name)).config_version == before.config_version
    assert not (await desk.fetch(name)).content_changed
    # The validators were not forgotten, so the server did not send the content again.
    assert site.requests[-1].headers["If-None-Match"] == '"v1"'
