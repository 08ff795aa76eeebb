"""Steps after a fetch or a deletion is recorded, whose failure must not change its result."""

import threading
from dataclasses import replace
from uuid import uuid4

import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.cache.garbage_collection import delete_unreferenced
from spine.errors import NotFound
from spine.flows.fetch_source import _show
from spine.sources.fetch_results import FetchResult
from spine.sources.fetch_state import OpenFetch
from spine.tables.base import new_id, utc_now
from spine.tables.sources import RUNNING

from tests.sources.readers.support import settle
from tests.sources.support import Desk
from tests.support.receivers import receiver, refuse
from tests.support.stack import PrefectStack

ROWS = b"day,venue,shares\n2026-01-05,AAA,1\n"
OTHER_ROWS = b"day,venue,shares\n2026-01-05,BBB,2\n"


def limited(desk: Desk, max_bytes: int) -> Desk:
    """The same desk with a limit on its cache."""
    settings = desk.context.settings.model_copy(update={"cache_max_bytes": max_bytes})
    return replace(desk, context=replace(desk.context, settings=settings))


async def test_a_fetch_that_exceeds_the_cache_limit_evicts_the_least_recently_used_content(desk: Desk) -> None:
    desk = limited(desk, len(ROWS) + 1)
    settle(desk.file("old.csv", ROWS), desk.file("new.csv", OTHER_ROWS))
    old = await desk.register("file", {"path": "old.csv"})
    new = await desk.register("file", {"path": "new.csv"})
    await desk.fetch(old)
    assert await desk.content(old) == [ROWS]
    await desk.fetch(new)
    assert await desk.entries(old) == []
    assert await desk.content(new) == [OTHER_ROWS]
    assert len(list(desk.context.store.list())) == 1


async def test_a_fetch_succeeds_even_when_its_eviction_fails(desk: Desk) -> None:
    settle(desk.file("a.csv", ROWS), desk.file("b.csv", OTHER_ROWS))
    name = await desk.register("file", {"path": "a.csv"})
    await desk.fetch(name)
    # The content to be evicted is replaced by a folder, which cannot be deleted like a file.
    blob = desk.context.store.local_path((await desk.entries(name))[0].content_hash)
    assert blob is not None
    blob.unlink()
    blob.mkdir()
    name = await desk.register("file", {"path": "b.csv"})
    started = await desk.start(name)
    assert (await limited(desk, 1).run(started)).status == "SUCCESS"
    assert (await desk.read_fetch(started.fetch_id)).status == "SUCCESS"
    assert blob.is_dir()


async def test_an_attempt_after_the_result_was_recorded_reads_nothing_and_returns_the_same_result(
    desk: Desk,
) -> None:
    with receiver() as site:
        site.always = refuse(200, ROWS)
        started = await desk.start(await desk.register("http", {"url": f"http://127.0.0.1:{site.port}/a.csv"}))
        first = await desk.run(started)
        # Prefect repeats the task when the answer to the commit was lost.
        assert await desk.run(started) == first
        assert len(site.requests) == 1
    source = await desk.source(started.source_name)
    assert (first.status, source.total_fetches, source.claimed_by) == ("SUCCESS", 1, None)


async def test_the_success_of_a_renamed_source_resolves_the_alerts_under_its_old_name(desk: Desk) -> None:
    name = await desk.register("file", {"path": "late.csv"})
    other = await desk.register("file", {"path": "later.csv"})
    for source in (name, other):
        assert (await desk.fetch(source)).status == "FAILED"
    await desk.update(name, name=f"{name}-renamed")
    settle(desk.file("late.csv", ROWS))
    assert (await desk.fetch(f"{name}-renamed")).status == "SUCCESS"
    assert [alert.resolved_at is not None for alert in await desk.alerts(name)] == [True]
    assert [alert.resolved_at is not None for alert in await desk.alerts(other)] == [False]


async def test_a_fetch_that_cannot_read_the_cache_leaves_nothing_open(desk: Desk) -> None:
    with receiver() as site:
        site.always = refuse(200, ROWS)
        url = f"http://127.0.0.1:{site.port}/a.csv"
        name = await desk.register("http", {"url": url, "timeout_seconds": 600})
        await desk.fetch(name)
        blobs = desk.context.settings.home / "cache" / "blobs"
        blobs.rename(blobs.with_name("elsewhere"))
        blobs.write_text("a file where a folder belongs")
        assert (await desk.fetch(name)).error_category == "STORAGE"
    # A reader has a timer until it is closed.
    assert [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)] == []


async def test_a_source_can_be_deleted_while_the_storage_of_the_cache_is_unreachable(desk: Desk) -> None:
    settle(desk.file("a.csv", ROWS))
    name = await desk.register("file", {"path": "a.csv"})
    await desk.fetch(name)
    blobs = desk.context.settings.home / "cache" / "blobs"
    blobs.rename(blobs.with_name("elsewhere"))
    blobs.write_text("a file where a folder belongs")
    assert (await desk.registry.delete(desk.context.store, name)).status == "deleted"
    with pytest.raises(NotFound):
        await desk.source(name)
    # Maintenance finds the content once the storage is back.
    blobs.unlink()
    blobs.with_name("elsewhere").rename(blobs)
    assert len(list(desk.context.store.list())) == 1
    await delete_unreferenced(desk.context.sessions, desk.context.store)
    assert list(desk.context.store.list()) == []


async def test_an_artifact_that_prefect_refuses_does_not_fail_the_run(stack: PrefectStack) -> None:
    # A surrogate cannot be sent. Real names of sources never contain one.
    started = OpenFetch(new_id(), new_id(), "desk \ud800", RUNNING, False, uuid4(), utc_now())

    @flow(name=f"fetching.{uuid4().hex[:10]}", persist_result=False)
    async def show() -> str:
        await _show(started, FetchResult(content_hash="0" * 64, content_changed=True, bytes_fetched=1, rows_parsed=1))
        return "shown"

    with temporary_settings({PREFECT_API_URL: stack.url}):
        assert await show() == "shown"
