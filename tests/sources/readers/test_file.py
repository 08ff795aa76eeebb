"""Files: only below the roots, whole, and only when they have changed."""

import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from spine.egress.fetch_failure import FetchFailure
from spine.egress.paths import FileRoots
from spine.schemas import ErrorCategory
from spine.sources.readers import file as reading
from spine.sources.readers.base import Item, Unchanged
from spine.sources.readers.file import FileReader

from tests.sources.readers.support import CONTENT, failure, known_of, limits, read, read_one, settle


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


def reader(path: Path | str, *roots: Path, max_bytes: int | None = None) -> FileReader:
    return FileReader(str(path), FileRoots(roots), limits(max_bytes))


def test_a_file_is_read_with_its_validators(root: Path) -> None:
    (root / "a.csv").write_bytes(CONTENT)
    item, content = read_one(reader(root / "a.csv", root))
    assert content == CONTENT
    assert (item.key, item.name, item.content_type) == (str(root / "a.csv"), "a.csv", "text/csv")
    assert item.validators.size == len(CONTENT)
    assert item.validators.last_modified is not None


def test_chunks_are_of_a_few_mebibytes_and_no_more_is_in_memory(root: Path) -> None:
    with (root / "big").open("wb") as file:
        file.truncate(256 * 1024 * 1024)
    settle(root / "big")
    opened = reader(root / "big", root)
    tracemalloc.start()
    try:
        [sizes] = [[len(part) for part in item.chunks] for item in opened.items({}, False) if isinstance(item, Item)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(sizes) == 256 * 1024 * 1024
    assert all(1024 * 1024 <= size <= 4 * 1024 * 1024 for size in sizes)
    assert peak < 16 * 1024 * 1024


def test_a_path_is_relative_to_the_only_root(root: Path, tmp_path: Path) -> None:
    (root / "a").write_bytes(b"1")
    assert read_one(reader("a", root))[1] == b"1"
    assert read_one(reader("?", root))[1] == b"1"
    refused = failure(reader("a", root, tmp_path))
    assert refused.category is ErrorCategory.CONFIG
    assert "must be absolute" in refused.sentence


def test_an_unchanged_file_is_read_only_with_force(root: Path) -> None:
    file = root / "a"
    file.write_bytes(b"1")
    known = known_of(read(reader(file, root)))
    [unchanged] = read(reader(file, root), known)
    assert isinstance(unchanged, Unchanged)
    assert {unchanged.key: unchanged.validators} == known
    [(_, content)] = [one for one in read(reader(file, root), known, force=True) if not isinstance(one, Unchanged)]
    assert content == b"1"


def test_a_file_is_read_only_once_its_clock_has_ticked_on(root: Path) -> None:
    # Or a change right after reading could leave it with the same size and the same time.
    file = root / "a"
    file.write_bytes(b"1")
    known = known_of(read(reader(file, root)))
    assert time.time() - file.stat().st_mtime >= reading.SECONDS_UNTIL_SETTLED
    file.write_bytes(b"2")
    assert read_one(reader(file, root), known)[1] == b"2"


def test_a_pattern_gives_every_file_in_order(root: Path) -> None:
    (root / "x").mkdir()
    for name in ("b.csv", "a.csv", "x/c.csv", ".hidden.csv", "d.txt"):
        (root / name).write_bytes(name.encode())
    (root / "folder.csv").mkdir()
    (root / "link.csv").symlink_to("x/c.csv")
    (root / "gone.csv").symlink_to("nowhere.csv")
    for name in ("round", "x/again"):
        (root / name).symlink_to(root)
    found = [one for one in read(reader(root / "**" / "*.csv", root)) if not isinstance(one, Unchanged)]
    assert [content for _, content in found] == [b"a.csv", b"b.csv", b"x/c.csv", b"x/c.csv"]
    assert [item.key for item, _ in found] == [str(root / name) for name in ("a.csv", "b.csv", "link.csv", "x/c.csv")]
    nothing = failure(reader(root / "*.parquet", root))
    assert (nothing.category, nothing.transient) == (ErrorCategory.SOURCE, False)


def test_a_pattern_begins_with_folders_whatever_their_names_and_whether_they_are_links(tmp_path: Path) -> None:
    root = tmp_path / "[root]"
    (root / "real" / "x").mkdir(parents=True)
    (root / "real" / "x" / "a.csv").write_bytes(b"1")
    (root / "link").symlink_to("real")
    (tmp_path / "alias").symlink_to(root)
    for below, pattern in (
        (root, "link/*/*.csv"),
        (root, f"{root}/link/**/a.csv"),
        (root, "./link//x/?.csv"),
        (tmp_path / "alias", "**/*.csv"),
    ):
        assert read_one(reader(pattern, below))[1] == b"1"
    assert failure(reader("none/*.csv", root)).sentence == "No file matches none/*.csv."


def test_the_deadline_is_enforced_while_directories_are_searched(root: Path) -> None:
    (root / "x").mkdir()
    late = failure(FileReader("**/*.csv", FileRoots([root]), limits(seconds=0)))
    assert "within the 0 s that timeout_seconds allows" in late.sentence


def test_without_roots_file_sources_are_disabled(root: Path) -> None:
    (root / "a").write_bytes(b"1")
    closed = failure(reader(root / "a"))
    assert closed.category is ErrorCategory.CONFIG
    assert "SPINE_FILE_ROOTS" in closed.sentence


@pytest.mark.parametrize("path", ["/etc/hostname", "{root}/../secret", "../secret", "{root}x/secret"])
def test_a_path_outside_is_refused(root: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "rootx").mkdir()
    (tmp_path / "rootx" / "secret").write_bytes(b"secret")
    assert failure(reader(path.format(root=root), root)).category is ErrorCategory.CONFIG


@pytest.mark.parametrize("pattern", ["link", "li*", "folder/secret", "folder/*", "**/secret"])
def test_a_link_to_a_path_outside_of_the_roots_is_refused(root: Path, tmp_path: Path, pattern: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "link").symlink_to(tmp_path / "outside" / "secret")
    refused = failure(reader(root / pattern, root))
    assert refused.category in (ErrorCategory.CONFIG, ErrorCategory.SOURCE)
    assert str(tmp_path / "outside") not in refused.sentence


def test_a_link_within_the_roots_is_followed_also_where_a_root_is_one(root: Path, tmp_path: Path) -> None:
    (root / "real").write_bytes(b"1")
    (root / "link").symlink_to(root / "real")
    (tmp_path / "alias").symlink_to(root)
    assert read_one(reader(root / "link", root))[1] == b"1"
    assert read_one(reader(tmp_path / "alias" / "link", tmp_path / "alias"))[1] == b"1"


@pytest.mark.parametrize("swapped", ["file", "folder"])
def test_a_link_created_between_check_and_opening_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a").write_bytes(b"secret")
    (root / "folder").mkdir()
    (root / "folder" / "a").write_bytes(b"1")
    victim = root / "folder" / "a" if swapped == "file" else root / "folder"
    target = tmp_path / "outside" / "a" if swapped == "file" else tmp_path / "outside"
    open_below = reading._open_below

    def swap_first(base: Path, parts: tuple[str, ...]) -> int:
        victim.rename(tmp_path / "moved")
        victim.symlink_to(target)
        return open_below(base, parts)

    monkeypatch.setattr(reading, "_open_below", swap_first)
    refused = failure(reader(root / "folder" / "a", root))
    assert (refused.category, refused.transient) == (ErrorCategory.SOURCE, True)


def test_folders_fifos_and_devices_are_refused_at_once(root: Path) -> None:
    (root / "folder").mkdir()
    os.mkfifo(root / "fifo")
    devices = (Path("/dev/zero"), Path("/dev"), "never readable")
    for path, below, reason in (
        *((root / name, root, "not a regular file") for name in ("folder", "fifo")),
        devices,
    ):
        refused = failure(reader(path, below))
        assert refused.category is ErrorCategory.CONFIG
        assert reason in refused.sentence


def test_missing_files_and_missing_permissions_are_distinguished(root: Path) -> None:
    missing = failure(reader(root / "a", root))
    assert (missing.category, missing.transient) == (ErrorCategory.SOURCE, False)
    assert failure(reader(root / "a" / "b", root)).category is ErrorCategory.SOURCE
    (root / "loop").symlink_to(root / "loop")
    assert failure(reader(root / "loop", root)).category is ErrorCategory.SOURCE


def _grow(file: Path) -> None:
    with file.open("ab") as output:
        output.write(b"more")


def _shrink(file: Path) -> None:
    os.truncate(file, len(CONTENT) - 5)


def _touch(file: Path) -> None:
    os.utime(file)


@pytest.mark.parametrize("change", [_grow, _shrink, _touch])
def test_a_file_that_changes_while_it_is_read_is_a_failure(root: Path, change: object) -> None:
    file = root / "a"
    file.write_bytes(CONTENT)
    settle(file)
    opened = reader(file, root)
    items = opened.items({}, False)
    item = next(items)
    assert isinstance(item, Item)
    chunks: Iterator[bytes] = item.chunks
    next(chunks)
    assert callable(change)
    change(file)
    with pytest.raises(FetchFailure) as caught:
        list(chunks)
    assert (caught.value.category, caught.value.transient) == (ErrorCategory.SOURCE, True)
    opened.close()


def test_max_bytes_limits_the_sum_of_all_files(root: Path) -> None:
    for name in ("a", "b"):
        (root / name).write_bytes(b"x" * 600)
    assert len(read(reader(root / "*", root, max_bytes=1200))) == 2
    too_much = failure(reader(root / "*", root, max_bytes=1199))
    assert (too_much.category, too_much.transient) == (ErrorCategory.SOURCE, False)
    assert "1,199 bytes that max_bytes" in too_much.sentence


def test_the_deadline_is_enforced_while_a_file_is_read(root: Path) -> None:
    (root / "a").write_bytes(CONTENT)
    settle(root / "a")
    opened = FileReader(str(root / "a"), FileRoots([root]), limits(seconds=0))
    late = failure(opened)
    assert "within the 0 s that timeout_seconds allows" in late.sentence


def test_nothing_stays_open(root: Path) -> None:
    for name in ("a", "b", "c"):
        (root / name).write_bytes(CONTENT)
        settle(root / name)
    before = len(os.listdir("/proc/self/fd"))
    opened = reader(root / "*", root)
    for item in opened.items({}, False):
        assert isinstance(item, Item)
        next(item.chunks)
        assert len(os.listdir("/proc/self/fd")) == before + 1
    opened.close()
    read(reader(root / "*", root), known_of(read(reader(root / "*", root))))
    # What is this young is waited for, which the deadline forbids.
    os.utime(root / "a")
    assert "timeout_seconds" in failure(FileReader(str(root / "a"), FileRoots([root]), limits(seconds=0))).sentence
    assert len(os.listdir("/proc/self/fd")) == before
