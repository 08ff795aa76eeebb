"""A store that is not the one of the database: nothing is deleted, in the database or in the store."""

import asyncio
import shutil
from pathlib import Path

import pytest
from spine.cache.eviction import evict
from spine.cache.failures import StoreMismatch
from spine.cache.garbage_collection import clear
from spine.cache.local_blobs import MARKER
from spine.cache.ownership import adopt_store, require_own_store
from spine.cache.reconciling import reconcile
from spine.cache.store import BlobStore
from spine.settings import Settings

from tests.cache.support import Cache, hash_of, put_blob
from tests.cache.test_garbage_collection import assert_stored

CONTENTS = (b"first", b"second")


def store_at(folder: Path, *, in_home: bool = False) -> BlobStore:
    """A store at a URL, or in a home without one."""
    return BlobStore.from_settings(Settings(home=folder) if in_home else Settings(cache_url=str(folder / "cache")))


@pytest.fixture
async def filled(cache: Cache, tmp_path: Path) -> Cache:
    """A cache whose store several processes use, with content."""
    filled = Cache(cache.sessions, store_at(tmp_path / "shared"))
    await filled.fetch(await filled.source(), *CONTENTS)
    await reconcile(filled.sessions, filled.store)
    return filled


async def assert_nothing_is_deleted(filled: Cache, store: BlobStore) -> None:
    """Whatever deletes refuses this store."""
    put_blob(store, b"of another database")
    for delete in (
        reconcile(filled.sessions, store),
        evict(filled.sessions, store, 0),
        clear(filled.sessions, store, None, expired_only=False),
    ):
        with pytest.raises(StoreMismatch, match="SPINE_CACHE_URL"):
            await delete
    assert store.size(hash_of(b"of another database")) is not None
    await assert_stored(filled, *CONTENTS)
    # The others still work.
    assert (await reconcile(filled.sessions, filled.store)).lost_entries == 0


async def test_a_replica_without_the_url_of_the_cache_deletes_nothing(filled: Cache, tmp_path: Path) -> None:
    await assert_nothing_is_deleted(filled, store_at(tmp_path / "replica", in_home=True))


async def test_a_replica_with_an_empty_mount_deletes_nothing_and_works_after_the_mount(
    filled: Cache, tmp_path: Path
) -> None:
    folder, mounted = tmp_path / "shared" / "cache", tmp_path / "mounted"
    folder.rename(mounted)
    with pytest.raises(StoreMismatch, match="it has no marker of one"):
        await reconcile(filled.sessions, filled.store)
    mounted.rename(folder)
    await assert_nothing_is_deleted(filled, store_at(tmp_path / "empty"))


async def test_a_store_of_another_database_loses_nothing(filled: Cache, tmp_path: Path) -> None:
    store = store_at(tmp_path / "other")
    store.write_marker("01ARZ3NDEKTSV4RRFFQ69G5FAV")
    with pytest.raises(StoreMismatch, match="that of another database"):
        await require_own_store(filled.sessions, store)
    await assert_nothing_is_deleted(filled, store)


async def test_a_database_that_is_older_than_the_marker_claims_only_a_store_with_its_content(
    cache: Cache, tmp_path: Path
) -> None:
    filled = Cache(cache.sessions, store_at(tmp_path / "shared"))
    await filled.fetch(await filled.source(), *CONTENTS)
    for store in (store_at(tmp_path / "empty"), store_at(tmp_path / "replica", in_home=True)):
        with pytest.raises(StoreMismatch):
            await reconcile(filled.sessions, store)
    await assert_nothing_is_deleted(filled, store_at(tmp_path / "late"))


async def test_of_processes_that_claim_different_stores_at_once_one_wins(cache: Cache, tmp_path: Path) -> None:
    stores = [store_at(tmp_path / str(number)) for number in range(5)]
    claims = [require_own_store(cache.sessions, store) for store in stores]
    found = await asyncio.gather(*claims, return_exceptions=True)
    assert sorted(type(one).__name__ for one in found) == ["NoneType", *["StoreMismatch"] * 4]
    (winner,) = [store for store, one in zip(stores, found, strict=True) if one is None]
    await require_own_store(cache.sessions, winner)


async def test_an_adopted_store_takes_the_place_of_the_one_before(filled: Cache, tmp_path: Path) -> None:
    moved = store_at(tmp_path / "moved")
    await adopt_store(filled.sessions, moved)
    assert (await reconcile(filled.sessions, moved)).lost_entries == len(CONTENTS)
    with pytest.raises(StoreMismatch, match="that of another database"):
        await reconcile(filled.sessions, filled.store)


async def test_a_folder_beside_a_sqlite_file_may_be_deleted(
    cache: Cache, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    await cache.fetch(await cache.source(), *CONTENTS)
    await reconcile(cache.sessions, cache.store)
    shutil.rmtree(tmp_path / "home" / "cache")
    if "postgresql" in request.node.name:
        with pytest.raises(StoreMismatch):
            await reconcile(cache.sessions, cache.store)
        return
    assert (await reconcile(cache.sessions, cache.store)).lost_entries == len(CONTENTS)
    assert (tmp_path / "home" / "cache" / MARKER).is_file()


async def test_a_marker_is_kept_by_each_kind_of_store(store: BlobStore) -> None:
    assert store.read_marker() is None
    for text in ("first", "second"):
        store.write_marker(text)
        assert store.read_marker() == text
    assert list(store.list()) == []
