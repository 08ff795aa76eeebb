"""One fetch at a time reads a source, however many are requested and whichever process dies."""

import asyncio
import threading
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from spine.egress.fetch_failure import FetchFailure, FetchLost
from spine.errors import Conflict
from spine.schemas import ErrorCategory
from spine.sources.fetch_requests import record_request
from spine.sources.fetch_results import FetchResult
from spine.sources.fetch_state import finish_fetch, renew_lease
from spine.sources.fetching import context
from spine.tables.base import utc_now
from spine.tables.sources import Fetch
from sqlalchemy import select, text, update

from tests.sources.readers.support import settle
from tests.sources.support import ON_EACH_DATABASE, Desk
from tests.support.processes import wait_until
from tests.support.receivers import Behaviour, Handler, Receiver, receiver

pytestmark = ON_EACH_DATABASE

ROWS = b"day,venue\n2026-01-05,AAA\n"


def when(free: threading.Event, body: bytes) -> Behaviour:
    """Respond once `free` is set."""

    def behave(handler: Handler) -> None:
        assert free.wait(30)
        handler.answer(200, body)

    return behave


def trickle(handler: Handler) -> None:
    """Send small parts of a response without end."""
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    while not handler.receiver.stopped.wait(0.02):
        handler.wfile.write(b"x" * 65_536)


async def first_request(site: Receiver) -> None:
    """Wait for the first request."""
    await asyncio.to_thread(wait_until, lambda: bool(site.requests), "somebody to read", 30)


async def kill(desk: Desk, fetch_id: str) -> None:
    """Let the lease and the grace period of a fetch expire, as if its process had been killed a while ago."""
    await expire_lease(desk, fetch_id, grace_until=utc_now() - timedelta(seconds=1))


async def expire_lease(desk: Desk, fetch_id: str, **values: Any) -> None:
    """Let the lease of a fetch expire, as if its process had not reached the database for a while."""
    async with desk.context.sessions.begin() as session:
        expired = {"lease_until": utc_now() - timedelta(seconds=1), **values}
        await session.execute(update(Fetch).where(Fetch.id == fetch_id).values(expired))


async def test_the_second_of_two_fetches_waits_and_shares_the_result_of_the_first(desk: Desk) -> None:
    free = threading.Event()
    with receiver() as site:
        site.always = when(free, ROWS)
        name = await desk.register("http", {"url": f"http://127.0.0.1:{site.port}/a.csv"})
        first = asyncio.create_task(desk.fetch(name))
        await first_request(site)
        second = asyncio.create_task(desk.fetch(name))
        await asyncio.sleep(0.5)
        free.set()
        one, two = await asyncio.gather(first, second)
        assert len(site.requests) == 1
    assert (one.status, one.bytes_fetched, one.content_changed) == ("SUCCESS", len(ROWS), True)
    assert (two.status, two.bytes_fetched, two.content_changed) == ("SUCCESS", 0, False)
    assert (two.content_hash, two.rows_parsed) == (one.content_hash, 1)


async def test_a_forced_fetch_that_waited_reads_for_itself(desk: Desk) -> None:
    free = threading.Event()
    with receiver() as site:
        site.always = when(free, ROWS)
        name = await desk.register("http", {"url": f"http://127.0.0.1:{site.port}/a.csv"})
        first = asyncio.create_task(desk.fetch(name))
        await first_request(site)
        second = asyncio.create_task(desk.fetch(name, force=True))
        await asyncio.sleep(0.3)
        assert len(site.requests) == 1
        free.set()
        await asyncio.gather(first, second)
        assert len(site.requests) == 2


async def test_the_source_of_a_killed_fetch_can_be_claimed_again(desk: Desk) -> None:
    settle(desk.file("a.csv", ROWS))
    name = await desk.register("file", {"path": "a.csv"})
    killed = await desk.start(name)
    await desk.claim_source_of(killed)
    waiting = asyncio.create_task(desk.fetch(name))
    await asyncio.sleep(1.3)
    assert not waiting.done()
    await kill(desk, killed.fetch_id)
    assert (await waiting).status == "SUCCESS"


async def test_a_fetch_keeps_its_claim_when_it_renews_an_expired_lease_in_the_grace_period(desk: Desk) -> None:
    free = threading.Event()
    with receiver() as site:
        site.always = when(free, ROWS)
        name = await desk.register("http", {"url": f"http://127.0.0.1:{site.port}/a.csv"})
        expired = await desk.start(name)
        running = asyncio.create_task(desk.run(expired))
        await first_request(site)
        await expire_lease(desk, expired.fetch_id)
        waiting = asyncio.create_task(desk.fetch(name))
        # By then it has tried to claim the source twice.
        await asyncio.sleep(1.5)
        assert await renew_lease(desk.context.sessions, expired.fetch_id)
        free.set()
        assert (await running).status == "SUCCESS"
        assert (await waiting).bytes_fetched == 0
        assert len(site.requests) == 1


async def test_a_fetch_that_is_given_up_while_it_reads_stops_reading(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "LEASE", timedelta(seconds=1))
    with receiver() as site:
        site.always = trickle
        name = await desk.register("http", {"url": f"http://127.0.0.1:{site.port}/a.bin"})
        started = await desk.start(name)

        async def run() -> None:
            async with desk.context.leased(started.fetch_id):
                await desk.run(started)

        running = asyncio.create_task(run())
        await first_request(site)
        await asyncio.sleep(0.5)
        assert not running.done()
        gone = FetchResult(error="It is gone.", error_category=ErrorCategory.ORCHESTRATION)
        await finish_fetch(desk.context.sessions, started.fetch_id, gone)
        with pytest.raises(FetchLost):
            await asyncio.wait_for(running, 5)
    assert desk.stray_files() == []


async def test_a_fetch_that_has_succeeded_is_not_cancelled_in_its_last_steps(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "LEASE", timedelta(seconds=0.5))
    settle(desk.file("a.csv", ROWS))
    started = await desk.start(await desk.register("file", {"path": "a.csv"}))
    async with desk.context.leased(started.fetch_id):
        await desk.run(started)
        await asyncio.sleep(0.5)


@pytest.mark.slow
async def test_leases_are_renewed_after_an_unexpected_error_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "LEASE", timedelta(seconds=0.5))
    started = await desk.start(await desk.register("file", {"path": "a.csv"}))

    async def rename(old: str, new: str) -> None:
        async with desk.context.sessions.begin() as session:
            await session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    async with desk.context.leased(started.fetch_id):
        await rename("cache_holds", "elsewhere")
        await asyncio.sleep(0.5)
        await rename("elsewhere", "cache_holds")
        await expire_lease(desk, started.fetch_id)
        await asyncio.sleep(0.5)
        async with desk.context.sessions() as session:
            promised = await session.scalar(select(Fetch.lease_until).where(Fetch.id == started.fetch_id))
    assert promised is not None
    assert promised > utc_now()


async def test_an_abandoned_fetch_does_not_overwrite_the_content_of_the_next_one(desk: Desk) -> None:
    free = threading.Event()
    with receiver() as site:
        site.behaviours = [when(free, b"day,venue\n2025-12-29,OLD\n")]
        site.always = when(threading.Event(), b"")
        url = f"http://127.0.0.1:{site.port}/a.csv"
        name = await desk.register("http", {"url": url})
        stuck = await desk.start(name)
        running = asyncio.create_task(desk.run(stuck))
        await first_request(site)
        await kill(desk, stuck.fetch_id)
        settle(desk.file("a.csv", ROWS))
        site.behaviours = [lambda handler: handler.answer(200, ROWS)]
        assert (await desk.fetch(name)).status == "SUCCESS"
        free.set()
        with pytest.raises(FetchLost) as lost:
            await running
        await desk.fail(stuck, lost.value)
    ended = await desk.read_fetch(stuck.fetch_id)
    assert (ended.status, ended.error_category) == ("FAILED", "ORCHESTRATION")
    assert "did not renew its lease" in (ended.error or "")
    assert await desk.content(name) == [ROWS]


async def test_a_request_joins_a_fetch_in_progress_unless_it_is_forced(desk: Desk) -> None:
    name = await desk.register("file", {"path": "a.csv"})
    request = partial(record_request, desk.context.sessions, name, by="dashboard")
    first = await request("01J00000000000000000000001", force=False)
    again = await request("01J00000000000000000000001", force=False)
    other = await request("01J00000000000000000000002", force=False)
    forced = await request("01J00000000000000000000003", force=True)
    assert [one.fetch_id for one in (first, again, other)] == ["01J00000000000000000000001"] * 3
    assert forced.fetch_id == "01J00000000000000000000003"


async def test_many_requests_at_once_record_one_fetch(desk: Desk) -> None:
    name = await desk.register("file", {"path": "a.csv"})
    ids = [f"01J000000000000000000000{number:02}" for number in range(10)]
    answers = await asyncio.gather(
        *(record_request(desk.context.sessions, name, one, by="dashboard", force=False) for one in ids)
    )
    assert len({one.fetch_id for one in answers}) == 1
    assert answers[0].fetch_id in ids


async def test_a_request_does_not_join_a_fetch_whose_lease_has_expired(desk: Desk) -> None:
    name = await desk.register("file", {"path": "a.csv"})
    expired = await desk.start(name)
    await expire_lease(desk, expired.fetch_id)
    new = "01J00000000000000000000009"
    answer = await record_request(desk.context.sessions, name, new, by="tests", force=False)
    assert answer.fetch_id == new
    # The request does not decide whether that one is abandoned.
    assert (await desk.read_fetch(expired.fetch_id)).status == "RUNNING"


async def test_a_request_for_a_disabled_source_is_refused(desk: Desk) -> None:
    name = await desk.register("file", {"path": "a.csv"}, enabled=False)
    with pytest.raises(Conflict, match="disabled"):
        await record_request(desk.context.sessions, name, "01J00000000000000000000001", by="x", force=False)


async def test_the_second_fetch_reads_for_itself_when_the_first_has_failed(desk: Desk) -> None:
    free = threading.Event()

    def fail_then(handler: Handler) -> None:
        assert free.wait(30)
        handler.answer(404, b"")

    with receiver() as site:
        site.behaviours = [fail_then]
        site.always = lambda handler: handler.answer(200, ROWS)
        name = await desk.register("http", {"url": f"http://127.0.0.1:{site.port}/a.csv"})
        started = await desk.start(name)
        first = asyncio.create_task(desk.run(started))
        await first_request(site)
        second = asyncio.create_task(desk.fetch(name))
        await asyncio.sleep(0.2)
        free.set()
        with pytest.raises(FetchFailure) as failed:
            await first
        await desk.fail(started, failed.value)
        assert (await second).status == "SUCCESS"
