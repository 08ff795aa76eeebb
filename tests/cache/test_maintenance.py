"""Background maintenance in an API process: what it removes, what it leaves, and that it continues."""

import asyncio
import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from spine.cache import maintenance
from spine.cache.maintenance import CacheMaintenance
from spine.tables.base import utc_now
from structlog.testing import capture_logs

from tests.cache.support import Cache, hash_of, put_blob
from tests.cache.test_garbage_collection import assert_stored, set_last_used
from tests.run_history.support import until

COUNTS = ("staging_files", "expired_leases", "unreferenced_bytes", "stray_blobs", "lost_entries")
Logs = list[MutableMapping[str, Any]]


def leave_dead_staging_file(cache: Cache) -> Path:
    """A staging file as a process leaves it that is killed while it writes."""
    file = cache.store.stage()
    dead = file.path.with_name("dead.part")
    dead.write_bytes(b"half of someth")
    file.discard()
    return dead


@asynccontextmanager
async def maintaining(cache: Cache, max_bytes: int | None = None) -> AsyncIterator[Logs]:
    """Maintenance as in an API process, and its log."""
    with capture_logs() as logs:
        async with CacheMaintenance(cache.sessions, cache.store, max_bytes).running():
            yield logs


async def until_logged(logs: Logs, event: str, count: int = 1) -> MutableMapping[str, Any]:
    """Wait for a line of the log."""

    async def is_there() -> bool:
        return [line["event"] for line in logs].count(event) >= count

    await until(is_there, event)
    return [line for line in logs if line["event"] == event][count - 1]


async def maintain_once(cache: Cache, max_bytes: int | None = None) -> dict[str, int]:
    """Start, maintain once, and stop; the counts that were logged."""
    # Ensures that there is something to log, which happens after all but the eviction.
    leave_dead_staging_file(cache)
    async with maintaining(cache, max_bytes) as logs:
        logged = await until_logged(logs, "cache_reconciled")
    assert not [line for line in logs if line["log_level"] != "info"]
    return {name: logged[name] for name in COUNTS}


def removed(**counts: int) -> dict[str, int]:
    return {**dict.fromkeys(COUNTS, 0), "staging_files": 1, **counts}


async def test_leftovers_of_a_crash_are_removed_when_a_process_starts(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"good", b"lost")
    cache.store.delete(hash_of(b"lost"))
    put_blob(cache.store, b"stray")
    await cache.lease(hash_of(b"of the dead"), "dead fetch", -1)
    put_blob(cache.store, b"of the dead")
    dead = leave_dead_staging_file(cache)
    assert await maintain_once(cache) == removed(expired_leases=1, unreferenced_bytes=11, stray_blobs=1, lost_entries=1)
    assert not dead.exists()
    await assert_stored(cache, b"good")
    assert [entry.content_hash for entry in await cache.entries(source)] == [hash_of(b"good")]


async def test_replaced_content_is_removed_and_the_new_content_stays(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"before")
    await cache.fetch(source, b"after")
    assert await maintain_once(cache) == removed(unreferenced_bytes=6)
    await assert_stored(cache, b"after")


async def test_content_in_use_is_left_alone(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"being read")
    await cache.lease(hash_of(b"being read"), "reader")
    await cache.fetch(source, b"new")
    await cache.lease(hash_of(b"published"), "fetch")
    put_blob(cache.store, b"published")
    file = cache.store.stage()
    file.write(b"not yet published")
    assert await maintain_once(cache, max_bytes=1_000) == removed()
    await assert_stored(cache, b"being read", b"new", b"published")
    assert file.path.read_bytes() == b"not yet published"
    file.discard()


async def test_expired_entries_stay(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"stale", expires_at=utc_now() - timedelta(days=1))
    assert await maintain_once(cache, max_bytes=5) == removed()
    await assert_stored(cache, b"stale")
    assert len(await cache.entries(source)) == 1


async def test_foreign_files_in_the_cache_folder_stay_and_do_no_harm(cache: Cache) -> None:
    await cache.fetch(await cache.source(), b"good")
    blob = cache.store.local_path(hash_of(b"good"))
    assert blob is not None
    strangers = [blob.parent / "notes.txt", blob.parents[1] / "README", blob.parents[2] / "parts" / "notes.txt"]
    for stranger in strangers:
        stranger.parent.mkdir(exist_ok=True)
        stranger.write_text("written by a person")
    put_blob(cache.store, b"stray")
    assert await maintain_once(cache) == removed(stray_blobs=1)
    assert await cache.files() == {hash_of(b"good")}
    assert all(stranger.exists() for stranger in strangers)


async def test_only_a_size_limit_evicts_content_and_then_the_least_recently_used(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"oldest", b"middle", b"newest", b"in use")
    await set_last_used(cache, b"in use", b"oldest", b"middle", b"newest")
    await cache.lease(hash_of(b"in use"), "reader")
    assert await maintain_once(cache) == removed()
    await assert_stored(cache, b"oldest", b"middle", b"newest", b"in use")

    async def is_small_enough() -> bool:
        # The row is deleted after the file.
        return len(await cache.blobs()) == 2

    async with maintaining(cache, max_bytes=12):
        await until(is_small_enough, "the cache to become small enough")
    await assert_stored(cache, b"newest", b"in use")
    assert len(await cache.entries(source)) == 2


async def test_maintenance_repeats_and_logs_nothing_when_there_was_nothing_to_do(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "SECONDS_BETWEEN_RUNS", 0.05)
    await cache.fetch(await cache.source(), b"good")
    put_blob(cache.store, b"stray")
    async with maintaining(cache) as logs:
        await until_logged(logs, "cache_reconciled")
        await asyncio.sleep(0.3)
        assert len(logs) == 1
        put_blob(cache.store, b"another stray")
        logged = await until_logged(logs, "cache_reconciled", 2)
    assert (logged["stray_blobs"], logged["staging_files"]) == (1, 0)
    await assert_stored(cache, b"good")


async def test_an_unavailable_storage_costs_no_entry_and_is_retried(
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
    async with maintaining(cache) as logs:
        interrupted = await until_logged(logs, "cache_interrupted")
        await asyncio.sleep(0.3)
        assert len(await cache.entries(source)) == 2
        blobs.unlink()
        blobs.with_name("elsewhere").rename(blobs)
        logged = await until_logged(logs, "cache_reconciled")
    assert "cannot be used" in interrupted["reason"]
    assert logged["lost_entries"] == 1
    # Repeated failures are logged once, and so is the recovery.
    assert [line["event"] for line in logs] == ["cache_interrupted", "cache_resumed", "cache_reconciled"]
    await assert_stored(cache, b"good")


async def test_a_process_stops_at_once_and_removes_nothing_afterwards(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_blob(cache.store, b"stray")
    async with maintaining(cache) as logs:
        await until_logged(logs, "cache_reconciled")
        began = time.monotonic()
    # The pause between two runs is an hour.
    assert time.monotonic() - began < 60
    monkeypatch.setattr(maintenance, "SECONDS_BETWEEN_RUNS", 0.01)
    async with maintaining(cache):
        pass
    put_blob(cache.store, b"another stray")
    await asyncio.sleep(0.2)
    assert await cache.files() == {hash_of(b"another stray")}


@pytest.mark.slow
async def test_several_processes_can_maintain_the_cache_at_once(cache: Cache) -> None:
    source = await cache.source()
    await cache.fetch(source, b"good", b"lost")
    cache.store.delete(hash_of(b"lost"))
    # So many that both find some; one that comes late finds none, and logs nothing.
    for number in range(80):
        put_blob(cache.store, f"stray {number}".encode())

    async def is_done() -> bool:
        return await cache.files() == {hash_of(b"good")} and len(await cache.entries(source)) == 1

    with capture_logs() as logs:
        both = [CacheMaintenance(cache.sessions, cache.store, 1_000) for _ in range(2)]
        async with both[0].running(), both[1].running():
            await until(is_done, "the strays to be gone")
            await until_logged(logs, "cache_reconciled", 1)
    assert not [line for line in logs if line["log_level"] != "info"]
    await assert_stored(cache, b"good")


async def test_maintenance_works_on_s3(s3_cache: Cache) -> None:
    cache = s3_cache
    source = await cache.source()
    await cache.fetch(source, b"good", b"lost")
    cache.store.delete(hash_of(b"lost"))
    put_blob(cache.store, b"stray")
    assert await maintain_once(cache) == removed(stray_blobs=1, lost_entries=1)
    await assert_stored(cache, b"good")
