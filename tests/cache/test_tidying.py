"""Tidying up in the background of an API process: what it removes, what it leaves, and that it goes on."""

import asyncio
import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from spine.cache import maintenance
from spine.cache.maintenance import Tidying
from spine.tables.base import utc_now
from structlog.testing import capture_logs

from tests.cache.support import Cache, hash_of, put_blob
from tests.cache.test_removal import assert_there, used
from tests.run_history.support import until

Logs = list[MutableMapping[str, Any]]


def leave_a_dead_part(cache: Cache) -> Path:
    """What a process that was killed while it wrote has left."""
    part = cache.store.begin()
    dead = part.path.with_name("dead.part")
    dead.write_bytes(b"half of someth")
    part.discard()
    return dead


@asynccontextmanager
async def tidying_up(cache: Cache, max_bytes: int | None = None) -> AsyncIterator[Logs]:
    """An API process that tidies up, and what it writes into its log."""
    with capture_logs() as logs:
        async with Tidying(cache.sessions, cache.store, max_bytes).running():
            yield logs


async def until_told(logs: Logs, event: str, count: int = 1) -> MutableMapping[str, Any]:
    """Wait for a line of the log."""

    async def is_there() -> bool:
        return [line["event"] for line in logs].count(event) >= count

    await until(is_there, event)
    return [line for line in logs if line["event"] == event][count - 1]


async def tidy(cache: Cache, max_bytes: int | None = None) -> dict[str, int]:
    """Start, tidy up once, and stop; how many of everything were put in order."""
    # With it there always is something to tell, when all but the eviction is done.
    leave_a_dead_part(cache)
    async with tidying_up(cache, max_bytes) as logs:
        told = await until_told(logs, "cache_reconciled")
    assert not [line for line in logs if line["log_level"] != "info"]
    return {name: told[name] for name in ("parts", "holds", "unreferenced_bytes", "stray_blobs", "lost_entries")}


def found(**counts: int) -> dict[str, int]:
    return {"parts": 1, "holds": 0, "unreferenced_bytes": 0, "stray_blobs": 0, "lost_entries": 0, **counts}


async def test_what_a_crash_has_left_is_removed_when_a_process_starts(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"good", b"lost")
    cache.store.delete(hash_of(b"lost"))
    put_blob(cache.store, b"stray")
    await cache.hold(hash_of(b"of the dead"), "dead fetch", -1)
    put_blob(cache.store, b"of the dead")
    dead = leave_a_dead_part(cache)
    assert await tidy(cache) == found(holds=1, unreferenced_bytes=11, stray_blobs=1, lost_entries=1)
    assert not dead.exists()
    await assert_there(cache, b"good")
    assert [entry.content_hash for entry in await cache.entries(source)] == [hash_of(b"good")]


async def test_content_that_a_source_no_longer_has_is_removed_and_its_new_one_stays(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"before")
    await cache.fetch(source, b"after")
    assert await tidy(cache) == found(unreferenced_bytes=6)
    await assert_there(cache, b"after")


async def test_what_somebody_works_on_is_left_alone(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"being read")
    await cache.hold(hash_of(b"being read"), "reader")
    await cache.fetch(source, b"new")
    await cache.hold(hash_of(b"published"), "fetch")
    put_blob(cache.store, b"published")
    part = cache.store.begin()
    part.write(b"not yet published")
    assert await tidy(cache, max_bytes=1_000) == found()
    await assert_there(cache, b"being read", b"new", b"published")
    assert part.path.read_bytes() == b"not yet published"
    part.discard()


async def test_entries_that_are_stale_by_the_clock_stay(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"stale", expires_at=utc_now() - timedelta(days=1))
    assert await tidy(cache, max_bytes=5) == found()
    await assert_there(cache, b"stale")
    assert len(await cache.entries(source)) == 1


async def test_files_of_others_in_the_folder_of_the_cache_neither_go_nor_disturb(cache: Cache) -> None:
    await cache.fetch(await cache.source(), b"good")
    blob = cache.store.local_path(hash_of(b"good"))
    assert blob is not None
    strangers = [blob.parent / "notes.txt", blob.parents[1] / "README", blob.parents[2] / "parts" / "notes.txt"]
    for stranger in strangers:
        stranger.parent.mkdir(exist_ok=True)
        stranger.write_text("written by a person")
    put_blob(cache.store, b"stray")
    assert await tidy(cache) == found(stray_blobs=1)
    assert await cache.files() == {hash_of(b"good")}
    assert all(stranger.exists() for stranger in strangers)


async def test_without_a_limit_nothing_is_evicted_and_with_one_what_was_used_longest_ago(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"oldest", b"middle", b"newest", b"in use")
    await used(cache, b"in use", b"oldest", b"middle", b"newest")
    await cache.hold(hash_of(b"in use"), "reader")
    assert await tidy(cache) == found()
    await assert_there(cache, b"oldest", b"middle", b"newest", b"in use")

    async def is_small_enough() -> bool:
        # The row goes after the file.
        return len(await cache.blobs()) == 2

    async with tidying_up(cache, max_bytes=12):
        await until(is_small_enough, "the cache to become small enough")
    await assert_there(cache, b"newest", b"in use")
    assert len(await cache.entries(source)) == 2


async def test_it_is_done_again_and_says_nothing_when_there_was_nothing_to_do(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "SECONDS_BETWEEN", 0.05)
    await cache.fetch(await cache.source(), b"good")
    put_blob(cache.store, b"stray")
    async with tidying_up(cache) as logs:
        await until_told(logs, "cache_reconciled")
        await asyncio.sleep(0.3)
        assert len(logs) == 1
        put_blob(cache.store, b"another stray")
        told = await until_told(logs, "cache_reconciled", 2)
    assert (told["stray_blobs"], told["parts"]) == (1, 0)
    await assert_there(cache, b"good")


async def test_a_storage_that_is_out_of_reach_costs_no_entry_and_is_tried_again(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "SECONDS_AFTER_AN_ERROR", 0.05)
    source = await cache.source()
    await cache.fetch(source, b"good", b"lost")
    cache.store.delete(hash_of(b"lost"))
    blob = cache.store.local_path(hash_of(b"good"))
    assert blob is not None
    blobs = blob.parents[1]
    blobs.rename(blobs.with_name("elsewhere"))
    blobs.write_text("a file where a folder belongs")
    async with tidying_up(cache) as logs:
        met = await until_told(logs, "cache_interrupted")
        await asyncio.sleep(0.3)
        assert len(await cache.entries(source)) == 2
        blobs.unlink()
        blobs.with_name("elsewhere").rename(blobs)
        told = await until_told(logs, "cache_reconciled")
    assert "cannot be used" in met["reason"]
    assert told["lost_entries"] == 1
    # However often it failed, it says so once, and that it goes on.
    assert [line["event"] for line in logs] == ["cache_interrupted", "cache_resumed", "cache_reconciled"]
    await assert_there(cache, b"good")


async def test_a_process_that_stops_does_so_at_once_and_removes_nothing_more(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_blob(cache.store, b"stray")
    async with tidying_up(cache) as logs:
        await until_told(logs, "cache_reconciled")
        began = time.monotonic()
    assert time.monotonic() - began < 0.5
    monkeypatch.setattr(maintenance, "SECONDS_BETWEEN", 0.01)
    async with tidying_up(cache):
        pass
    put_blob(cache.store, b"another stray")
    await asyncio.sleep(0.2)
    assert await cache.files() == {hash_of(b"another stray")}


async def test_several_processes_can_tidy_up_at_once(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"good", b"lost")
    cache.store.delete(hash_of(b"lost"))
    # So many that the second finds some, too: who finds nothing says nothing.
    for number in range(80):
        put_blob(cache.store, f"stray {number}".encode())

    async def is_done() -> bool:
        return await cache.files() == {hash_of(b"good")} and len(await cache.entries(source)) == 1

    with capture_logs() as logs:
        both = [Tidying(cache.sessions, cache.store, 1_000) for _ in range(2)]
        async with both[0].running(), both[1].running():
            await until(is_done, "the strays to be gone")
            await until_told(logs, "cache_reconciled", 2)
    assert not [line for line in logs if line["log_level"] != "info"]
    await assert_there(cache, b"good")


async def test_it_works_on_s3_too(s3_cache: Cache) -> None:
    cache = s3_cache
    source = await cache.source()
    await cache.fetch(source, b"good", b"lost")
    cache.store.delete(hash_of(b"lost"))
    put_blob(cache.store, b"stray")
    assert await tidy(cache) == found(stray_blobs=1, lost_entries=1)
    await assert_there(cache, b"good")
