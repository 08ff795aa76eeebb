"""The blob store: content is complete or absent, stored once and private; failures are explained."""

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import fsspec  # type: ignore[import-untyped]
import pytest
from spine.cache.store import BlobMissing, BlobStore
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.settings import Settings
from spine.sources.isolation import processes

from tests.cache.support import hash_of, put_blob, read_blob
from tests.support.processes import free_port

LARGE = os.urandom(20 * 1024 * 1024 + 17)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_content_is_stored_under_its_hash(store: BlobStore) -> None:
    content_hash = put_blob(store, b"one\ntwo\n")
    assert content_hash == hash_of(b"one\ntwo\n")
    assert read_blob(store, content_hash) == b"one\ntwo\n"
    assert store.size(content_hash) == 8
    assert list(store.list()) == [(content_hash, 8)]


def test_content_written_in_many_chunks_is_stored_completely(store: BlobStore) -> None:
    file = store.stage()
    for first in range(0, len(LARGE), 2_000_003):
        file.write(LARGE[first : first + 2_000_003])
    staged = file.finish()
    store.publish(file)
    file.discard()
    assert (staged.content_hash, staged.size_bytes) == (hash_of(LARGE), len(LARGE))
    with store.open(staged.content_hash) as blob:
        blob.seek(10_000_000)
        assert blob.read(100) == LARGE[10_000_000:10_000_100]
        blob.seek(0)
        assert blob.read() == LARGE


def test_empty_content_can_be_stored(store: BlobStore) -> None:
    content_hash = put_blob(store, b"")
    assert read_blob(store, content_hash) == b""
    assert store.size(content_hash) == 0


def test_equal_content_is_stored_once(store: BlobStore) -> None:
    assert put_blob(store, b"same") == put_blob(store, b"same")
    assert len(list(store.list())) == 1


def test_an_incomplete_blob_is_replaced(local_store: BlobStore) -> None:
    content_hash = put_blob(local_store, b"complete")
    path = local_store.local_path(content_hash)
    assert path is not None
    path.write_bytes(b"comp")
    put_blob(local_store, b"complete")
    assert read_blob(local_store, content_hash) == b"complete"


def test_deleted_content_is_missing_and_may_be_deleted_again(store: BlobStore) -> None:
    content_hash = put_blob(store, b"gone soon")
    store.delete(content_hash)
    store.delete(content_hash)
    assert store.size(content_hash) is None
    assert list(store.list()) == []
    with pytest.raises(BlobMissing):
        store.open(content_hash)


def test_changes_are_visible_to_other_processes_at_once(s3_url: str, s3_store: BlobStore, tmp_path: Path) -> None:
    url = f"s3://cache/{uuid4().hex}"
    mine, yours = (BlobStore.from_settings(Settings(home=tmp_path / name, cache_url=url)) for name in ("mine", "yours"))
    assert list(yours.list()) == []
    content_hash = put_blob(mine, b"shared")
    assert yours.size(content_hash) == 6
    assert list(yours.list()) == [(content_hash, 6)]
    mine.delete(content_hash)
    assert yours.size(content_hash) is None
    assert list(yours.list()) == []


def test_a_staging_file_can_be_read_before_it_is_published(store: BlobStore) -> None:
    file = store.stage()
    file.write(b"to be parsed")
    file.finish()
    assert file.path.read_bytes() == b"to be parsed"
    assert list(store.list()) == []
    file.discard()


def test_nothing_is_left_of_a_discarded_staging_file(store: BlobStore, tmp_path: Path) -> None:
    file = store.stage()
    file.write(b"x" * 5_000_000)
    file.discard()
    file.discard()
    assert files_below(tmp_path) == []
    assert list(store.list()) == []


def test_nothing_is_left_of_a_published_staging_file(store: BlobStore, tmp_path: Path) -> None:
    content_hash = put_blob(store, b"kept")
    local = store.local_path(content_hash)
    assert files_below(tmp_path) == ([local] if local else [])


def test_staging_files_of_living_processes_are_not_swept(store: BlobStore) -> None:
    file = store.stage()
    file.write(b"still at it")
    assert store.sweep() == 0
    file.finish()
    store.publish(file)
    file.discard()
    assert read_blob(store, hash_of(b"still at it")) == b"still at it"


def test_a_staging_file_without_a_process_is_swept(local_store: BlobStore) -> None:
    file = local_store.stage()
    left = file.path.with_name("left.part")
    left.write_bytes(b"half of i")
    assert local_store.sweep() == 1
    assert not left.exists()
    assert file.path.exists()
    file.discard()


def test_an_old_unfinished_upload_is_swept(memory_store: BlobStore) -> None:
    files = fsspec.filesystem("memory")
    root = memory_store._blobs._root  # type: ignore[attr-defined]
    for name, age in (("old", "2020-01-01T00:00:00"), ("new", None)):
        files.pipe_file(f"{root}/uploads/{name}", b"half")
        if age:
            opened = files.store[f"{root}/uploads/{name}"]
            opened.modified = opened.modified.replace(year=2020)
    memory_store.sweep()
    assert [path.rpartition("/")[2] for path in files.ls(f"{root}/uploads", detail=False)] == ["new"]


def test_content_is_readable_only_by_its_owner(local_store: BlobStore) -> None:
    content_hash = put_blob(local_store, b"private")
    path = local_store.local_path(content_hash)
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    cache = path.parents[2]
    for folder in (cache, cache / "parts", cache / "blobs", path.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("form", ["{}", "file://{}", "local://{}"])
def test_a_local_folder_may_be_given_as_a_path_or_a_url(form: str, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    store = BlobStore.from_settings(Settings(home=tmp_path / "home", cache_url=form.format(folder)))
    assert store.local_path(put_blob(store, b"x")) == folder / "blobs" / hash_of(b"x")[:2] / hash_of(b"x")
    assert not (tmp_path / "home").exists()


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """Make the kernel refuse larger files, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    # The fork server has the limits that its parent had when it was started.
    processes.stop()
    try:
        yield
    finally:
        processes.stop()
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_a_storage_failure_and_leaves_no_file(local_store: BlobStore, tmp_path: Path) -> None:
    file = local_store.stage()
    file.write(b"x" * 2_000_000)
    with small_files(3_000_000), pytest.raises(FetchFailure) as failed:
        file.write(b"x" * 2_000_000)
    file.discard()
    assert failed.value.category is ErrorCategory.STORAGE
    assert failed.value.transient
    assert "File too large" in failed.value.sentence
    assert files_below(tmp_path) == []


def test_an_impossible_folder_is_a_permanent_storage_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = BlobStore.from_settings(Settings(home=tmp_path, cache_url=str(tmp_path / "file" / "cache")))
    with pytest.raises(FetchFailure) as failed:
        store.stage()
    assert failed.value.category is ErrorCategory.STORAGE
    assert not failed.value.transient
    assert failed.value.__cause__ is None


def test_an_unreachable_storage_is_a_storage_failure_without_secrets(
    s3_store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    store = BlobStore.from_settings(Settings(home=tmp_path / "home", cache_url="s3://key:hidden-secret@cache/x"))
    for operation in (store.size, store.open, store.delete):
        with pytest.raises(FetchFailure) as failed:
            operation("0" * 64)
        assert failed.value.category is ErrorCategory.STORAGE
        assert failed.value.transient
        assert not isinstance(failed.value, BlobMissing)
        assert "hidden" not in repr(failed.value)
        assert failed.value.__suppress_context__


def test_a_missing_bucket_is_a_storage_failure_that_leaves_no_staging_file(s3_store: BlobStore, tmp_path: Path) -> None:
    store = BlobStore.from_settings(Settings(home=tmp_path / "home", cache_url="s3://no-such-bucket/x"))
    with pytest.raises(FetchFailure) as failed:
        put_blob(store, b"nowhere to go")
    assert failed.value.category is ErrorCategory.STORAGE
    assert files_below(tmp_path / "home") == []
