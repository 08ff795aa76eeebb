"""Publication: what a reader sees before, while and after a partition is replaced, on several file systems."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec  # type: ignore[import-untyped]
import polars as pl
import pytest
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from flows import publication
from flows.publication import PublicationError

PARTITION = "some.dataset/tier=OTC/week_ending=2025-12-15"
TABLES = ("alpha", "beta", "gamma")


def make(folder: Path, content: str, rows: int = 50) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    files = {table: folder / f"{content}-{table}.parquet" for table in TABLES}
    for file in files.values():
        pl.DataFrame({"content": [content] * rows}).write_parquet(file)
    return files


def contents(warehouse: str) -> set[str]:
    """All values in all tables that a reader sees: one, unless captures are mixed."""
    read = publication.read_partition(warehouse, PARTITION)
    assert set(read.tables) == set(TABLES)
    assert {frame.height for frame in read.tables.values()} == {50}
    assert read.manifest.capture_id == read.tables["alpha"]["content"][0]
    return {value for frame in read.tables.values() for value in frame["content"]}


def captures(warehouse: Path) -> list[str]:
    return sorted(entry.name for entry in (warehouse / PARTITION).iterdir() if entry.is_dir())


@pytest.fixture(params=["path", "file", "memory"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    urls = {
        "path": str(tmp_path / "warehouse"),
        "file": (tmp_path / "warehouse").as_uri(),
        "memory": f"memory://{uuid4().hex}/warehouse",
    }
    yield urls[request.param]
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def test_what_was_published_can_be_read(warehouse: str, tmp_path: Path) -> None:
    manifest = publication.publish(warehouse, PARTITION, "A", make(tmp_path / "made", "A"), {"file": "x.csv"})
    assert contents(warehouse) == {"A"}
    assert publication.current(warehouse, PARTITION) == manifest
    assert {name: table.rows for name, table in manifest.tables.items()} == dict.fromkeys(TABLES, 50)
    assert manifest.details == {"file": "x.csv"}


def test_nothing_is_current_before_the_first_publication(warehouse: str) -> None:
    assert publication.current(warehouse, PARTITION) is None
    with pytest.raises(PublicationError, match="Nothing is published"):
        publication.read_partition(warehouse, PARTITION)


def test_another_capture_replaces_the_one_before_and_removes_its_files(warehouse: str, tmp_path: Path) -> None:
    publication.publish(warehouse, PARTITION, "A", make(tmp_path / "made", "A"))
    second = publication.publish(warehouse, PARTITION, "B", make(tmp_path / "made", "B"))
    assert contents(warehouse) == {"B"}
    fs, root = fsspec.url_to_fs(warehouse)
    found = {path.removeprefix(f"{root}/{PARTITION}/") for path in fs.find(f"{root}/{PARTITION}")}
    assert found == {"_current.json", *(f"{second.folder}/{table}.parquet" for table in TABLES)}


def test_a_capture_that_is_current_is_not_written_again(warehouse: str, tmp_path: Path) -> None:
    files = make(tmp_path / "made", "A")
    first = publication.publish(warehouse, PARTITION, "A", files)
    for file in files.values():
        file.unlink()
    assert publication.publish(warehouse, PARTITION, "A", files) == first


def test_a_current_capture_that_lost_a_file_is_repaired(warehouse: str, tmp_path: Path) -> None:
    files = make(tmp_path / "made", "A")
    first = publication.publish(warehouse, PARTITION, "A", files)
    fs, root = fsspec.url_to_fs(warehouse)
    fs.rm_file(f"{root}/{PARTITION}/{first.folder}/beta.parquet")
    with pytest.raises(PublicationError, match=r"Capture A in .* is damaged"):
        publication.read_partition(warehouse, PARTITION)
    publication.publish(warehouse, PARTITION, "A", files)
    assert contents(warehouse) == {"A"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "memory"])
def test_readers_see_one_whole_capture_while_two_publishers_take_turns(tmp_path: Path, kind: str) -> None:
    warehouse = str(tmp_path / "warehouse") if kind == "local" else f"memory://{uuid4().hex}"
    made = {name: make(tmp_path / "made", name) for name in ("A", "B")}
    publication.publish(warehouse, PARTITION, "A", made["A"])
    done, seen, failures = threading.Event(), [], []

    def read() -> None:
        while not done.is_set():
            try:
                seen.append(contents(warehouse))
            except Exception as error:
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(120):
        name = "BA"[turn % 2]
        publication.publish(warehouse, PARTITION, name, made[name])
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert {frozenset(contents) for contents in seen} == {frozenset("A"), frozenset("B")}


def test_concurrent_publishers_of_the_same_and_other_captures_leave_a_whole_partition(tmp_path: Path) -> None:
    warehouse = str(tmp_path / "warehouse")
    made = {name: make(tmp_path / "made", name) for name in ("A", "B")}
    failures = []

    def publish(name: str) -> None:
        try:
            for _ in range(25):
                publication.publish(warehouse, PARTITION, name, made[name])
        except Exception as error:
            failures.append(error)

    publishers = [threading.Thread(target=publish, args=(name,)) for name in "AABB"]
    for publisher in publishers:
        publisher.start()
    for publisher in publishers:
        publisher.join()
    assert failures == []
    assert contents(warehouse) in ({"A"}, {"B"})


@pytest.mark.parametrize("step", ["put_file", "mv"])
def test_a_crash_before_the_pointer_moves_leaves_the_old_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    warehouse = tmp_path / "warehouse"
    publication.publish(str(warehouse), PARTITION, "A", make(tmp_path / "made", "A"))
    replacement = make(tmp_path / "made", "B")
    real = getattr(LocalFileSystem, step)
    calls = []

    def crash_at_the_last_call(self: Any, source: str, target: str, **options: Any) -> Any:
        calls.append(target)
        if step == "mv" or len(calls) == len(TABLES):
            raise KeyboardInterrupt
        return real(self, source, target, **options)

    with monkeypatch.context() as crashing:
        crashing.setattr(LocalFileSystem, step, crash_at_the_last_call)
        with pytest.raises(KeyboardInterrupt):
            publication.publish(str(warehouse), PARTITION, "B", replacement)
    assert contents(str(warehouse)) == {"A"}
    assert len(captures(warehouse)) == 2, "the crash left files of B behind"
    publication.publish(str(warehouse), PARTITION, "B", replacement)
    assert contents(str(warehouse)) == {"B"}


def test_files_of_a_crash_are_removed_once_they_are_old_and_not_before(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse"
    for name, age in (("old", 2 * publication.ORPHAN_SECONDS), ("young", 60)):
        orphan = warehouse / PARTITION / f"{name}.00000000" / "alpha.parquet"
        orphan.parent.mkdir(parents=True)
        orphan.write_bytes(b"half")
        os.utime(orphan, (time.time() - age,) * 2)
    manifest = publication.publish(str(warehouse), PARTITION, "A", make(tmp_path / "made", "A"))
    assert captures(warehouse) == sorted([manifest.folder, "young.00000000"])


def test_an_upload_that_comes_out_short_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = str(tmp_path / "warehouse")
    publication.publish(warehouse, PARTITION, "A", make(tmp_path / "made", "A"))

    def cut(self: Any, source: str, target: str, **options: Any) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:-1])

    monkeypatch.setattr(LocalFileSystem, "put_file", cut)
    with pytest.raises(PublicationError, match="not complete after the upload"):
        publication.publish(warehouse, PARTITION, "B", make(tmp_path / "made", "B"))
    assert contents(warehouse) == {"A"}


def test_readers_of_hive_partitions_find_the_tables(tmp_path: Path) -> None:
    publication.publish(str(tmp_path / "warehouse"), PARTITION, "A", make(tmp_path / "made", "A"))
    found = pl.scan_parquet(tmp_path / "warehouse" / "**" / "alpha.parquet", hive_partitioning=True).collect()
    assert found.select("tier", pl.col("week_ending").cast(pl.String)).unique().rows() == [("OTC", "2025-12-15")]


def test_an_unknown_kind_of_warehouse_is_named_without_its_password() -> None:
    with pytest.raises(PublicationError) as raised:
        publication.current("nonsense://user:hunter2@host/warehouse?token=hunter2", PARTITION)
    assert "nonsense://host/warehouse" in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ftp://user:hunter2@host/a", "ftp://host/a"),
        ("ftp://user:p@ss@host/a", "ftp://host/a"),
        ("https://host/a?sig=hunter2", "https://host/a"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("/data/what?", "/data/what?"),
    ],
)
def test_urls_are_shown_without_credentials(url: str, shown: str) -> None:
    assert publication.without_credentials(url) == shown


def test_the_location_of_a_local_partition_is_a_link(tmp_path: Path) -> None:
    link = publication.location(str(tmp_path / "ware house"), PARTITION)
    assert link == f"{tmp_path.as_uri()}/ware%20house/{PARTITION}"
    assert publication.location("memory://warehouse", PARTITION).startswith("memory://")
