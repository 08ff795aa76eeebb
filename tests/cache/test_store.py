"""The store of blobs: whole or not there, once, private, and clear about what is wrong."""

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

from tests.cache.support import hash_of, put_blob, read_blob
from tests.support.processes import free_port

LARGE = os.urandom(20 * 1024 * 1024 + 17)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_content_is_found_under_its_hash(store: BlobStore) -> None:
    content_hash = put_blob(store, b"one\ntwo\n")
    assert content_hash == hash_of(b"one\ntwo\n")
    assert read_blob(store, content_hash) == b"one\ntwo\n"
    assert store.size(content_hash) == 8
    assert list(store.list()) == [(content_hash, 8)]


def test_content_that_is_written_in_many_pieces_arrives_whole(store: BlobStore) -> None:
    part = store.begin()
    for first in range(0, len(LARGE), 2_000_003):
        part.write(LARGE[first : first + 2_000_003])
    written = part.finish()
    store.publish(part)
    part.discard()
    assert (written.content_hash, written.size_bytes) == (hash_of(LARGE), len(LARGE))
    with store.open(written.content_hash) as file:
        file.seek(10_000_000)
        assert file.read(100) == LARGE[10_000_000:10_000_100]
        file.seek(0)
        assert file.read() == LARGE


def test_empty_content_is_content(store: BlobStore) -> None:
    content_hash = put_blob(store, b"")
    assert read_blob(store, content_hash) == b""
    assert store.size(content_hash) == 0


def test_equal_content_is_kept_once(store: BlobStore) -> None:
    assert put_blob(store, b"same") == put_blob(store, b"same")
    assert len(list(store.list())) == 1


def test_a_blob_that_is_not_whole_is_replaced(local_store: BlobStore) -> None:
    content_hash = put_blob(local_store, b"complete")
    path = local_store.local_path(content_hash)
    assert path is not None
    path.write_bytes(b"comp")
    put_blob(local_store, b"complete")
    assert read_blob(local_store, content_hash) == b"complete"


def test_what_is_deleted_is_missing_and_may_be_deleted_again(store: BlobStore) -> None:
    content_hash = put_blob(store, b"gone soon")
    store.delete(content_hash)
    store.delete(content_hash)
    assert store.size(content_hash) is None
    assert list(store.list()) == []
    with pytest.raises(BlobMissing):
        store.open(content_hash)


def test_another_process_sees_at_once_what_one_has_done(s3_url: str, s3_store: BlobStore, tmp_path: Path) -> None:
    url = f"s3://cache/{uuid4().hex}"
    mine, yours = (BlobStore.of(Settings(home=tmp_path / name, cache_url=url)) for name in ("mine", "yours"))
    assert list(yours.list()) == []
    content_hash = put_blob(mine, b"shared")
    assert yours.size(content_hash) == 6
    assert list(yours.list()) == [(content_hash, 6)]
    mine.delete(content_hash)
    assert yours.size(content_hash) is None
    assert list(yours.list()) == []


def test_a_part_can_be_read_before_it_is_published(store: BlobStore) -> None:
    part = store.begin()
    part.write(b"to be parsed")
    part.finish()
    assert part.path.read_bytes() == b"to be parsed"
    assert list(store.list()) == []
    part.discard()


def test_nothing_is_left_of_a_part_that_is_discarded(store: BlobStore, tmp_path: Path) -> None:
    part = store.begin()
    part.write(b"x" * 5_000_000)
    part.discard()
    part.discard()
    assert files_below(tmp_path) == []
    assert list(store.list()) == []


def test_nothing_is_left_of_a_part_after_it_is_published(store: BlobStore, tmp_path: Path) -> None:
    content_hash = put_blob(store, b"kept")
    local = store.local_path(content_hash)
    assert files_below(tmp_path) == ([local] if local else [])


def test_parts_of_living_processes_are_not_swept(store: BlobStore) -> None:
    part = store.begin()
    part.write(b"still at it")
    assert store.sweep() == 0
    part.finish()
    store.publish(part)
    part.discard()
    assert read_blob(store, hash_of(b"still at it")) == b"still at it"


def test_a_part_without_a_process_is_swept(local_store: BlobStore) -> None:
    part = local_store.begin()
    left = part.path.with_name("left.part")
    left.write_bytes(b"half of i")
    assert local_store.sweep() == 1
    assert not left.exists()
    assert part.path.exists()
    part.discard()


def test_an_upload_that_was_left_long_ago_is_swept(memory_store: BlobStore) -> None:
    files = fsspec.filesystem("memory")
    root = memory_store._blobs._root  # type: ignore[attr-defined]
    for name, age in (("old", "2020-01-01T00:00:00"), ("new", None)):
        files.pipe_file(f"{root}/uploads/{name}", b"half")
        if age:
            opened = files.store[f"{root}/uploads/{name}"]
            opened.modified = opened.modified.replace(year=2020)
    memory_store.sweep()
    assert [path.rpartition("/")[2] for path in files.ls(f"{root}/uploads", detail=False)] == ["new"]


def test_nobody_else_may_look_at_content(local_store: BlobStore) -> None:
    content_hash = put_blob(local_store, b"private")
    path = local_store.local_path(content_hash)
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    cache = path.parents[2]
    for folder in (cache, cache / "parts", cache / "blobs", path.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("form", ["{}", "file://{}", "local://{}"])
def test_a_folder_is_used_as_such_however_it_is_written(form: str, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    store = BlobStore.of(Settings(home=tmp_path / "home", cache_url=form.format(folder)))
    assert store.local_path(put_blob(store, b"x")) == folder / "blobs" / hash_of(b"x")[:2] / hash_of(b"x")
    assert not (tmp_path / "home").exists()


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """Let the kernel refuse larger files, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_is_a_storage_failure_and_leaves_nothing(
    local_store: BlobStore, tmp_path: Path
) -> None:
    part = local_store.begin()
    part.write(b"x" * 2_000_000)
    with small_files(3_000_000), pytest.raises(FetchFailure) as failed:
        part.write(b"x" * 2_000_000)
    part.discard()
    assert failed.value.category is ErrorCategory.STORAGE
    assert failed.value.transient
    assert "File too large" in failed.value.sentence
    assert files_below(tmp_path) == []


def test_a_folder_that_cannot_be_is_a_lasting_storage_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = BlobStore.of(Settings(home=tmp_path, cache_url=str(tmp_path / "file" / "cache")))
    with pytest.raises(FetchFailure) as failed:
        store.begin()
    assert failed.value.category is ErrorCategory.STORAGE
    assert not failed.value.transient
    assert failed.value.__cause__ is None


def test_a_storage_that_does_not_answer_is_a_storage_failure_without_secrets(
    s3_store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    store = BlobStore.of(Settings(home=tmp_path / "home", cache_url="s3://key:hidden-secret@cache/x"))
    for ask in (store.size, store.open, store.delete):
        with pytest.raises(FetchFailure) as failed:
            ask("0" * 64)
        assert failed.value.category is ErrorCategory.STORAGE
        assert failed.value.transient
        assert not isinstance(failed.value, BlobMissing)
        assert "hidden" not in repr(failed.value)
        assert failed.value.__suppress_context__


def test_a_bucket_that_is_gone_is_a_storage_failure_and_the_part_stays_its_writers(
    s3_store: BlobStore, tmp_path: Path
) -> None:
    store = BlobStore.of(Settings(home=tmp_path / "home", cache_url="s3://no-such-bucket/x"))
    with pytest.raises(FetchFailure) as failed:
        put_blob(store, b"nowhere to go")
    assert failed.value.category is ErrorCategory.STORAGE
    assert files_below(tmp_path / "home") == []
