"""Files of SFTP servers are read whole or not at all."""

import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.sources.readers.base import Item, Unchanged

from tests.sources.readers.sftp_server import SftpServer, reader, sftp_server
from tests.sources.readers.support import (
    CONTENT,
    failure,
    known_of,
    read,
    read_one,
    settle,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    folder = tmp_path_factory.mktemp("sftp")
    (folder / "in").mkdir()
    for name in ("in/b.csv", "in/a.csv", "in/.part.csv", "in/c.txt", "top.csv"):
        (folder / name).write_bytes(name.encode())
        settle(folder / name)
    (folder / "in" / "deep").mkdir()
    (folder / "in" / "deep" / "d.csv").write_bytes(b"in/deep/d.csv")
    (folder / "in" / "link.csv").symlink_to("a.csv")
    (folder / "in" / "round").symlink_to(".")
    (folder / "folder.csv").mkdir()
    (folder / "big").write_bytes(CONTENT)
    settle(folder / "in" / "deep" / "d.csv", folder / "big")
    with sftp_server(folder) as started:
        yield started


def test_a_file_is_read_with_its_validators(server: SftpServer) -> None:
    item, content = read_one(reader(server, "/big"))
    assert content == CONTENT
    assert item.key == f"sftp://127.0.0.1:{server.port}/big"
    assert (item.name, item.validators.size) == ("big", len(CONTENT))
    assert item.validators.last_modified is not None
    assert item.validators.last_modified.timestamp() == 1_700_000_000


def test_short_answers_are_put_together(server: SftpServer) -> None:
    server.longest_read = 20_000
    try:
        assert read_one(reader(server, "/big"))[1] == CONTENT
    finally:
        server.longest_read = 1 << 20


def test_a_big_file_is_read_in_chunks_of_little_memory(server: SftpServer) -> None:
    size = 48 * 1024 * 1024
    with (server.folder / "huge").open("wb") as file:
        file.truncate(size)
    settle(server.folder / "huge")
    opened = reader(server, "/huge")
    tracemalloc.start()
    try:
        sizes = []
        for item in opened.items({}, False):
            assert isinstance(item, Item)
            for chunk in item.chunks:
                sizes.append(len(chunk))
                # Who is slow with what was handed out is not given more.
                time.sleep(0.01)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        opened.close()
        (server.folder / "huge").unlink()
    assert sum(sizes) == size
    assert all(1024 * 1024 <= count <= 4 * 1024 * 1024 for count in sizes)
    # The server's part of it lies in the same process.
    assert peak < 32 * 1024 * 1024


def test_an_unchanged_file_is_read_only_with_force(server: SftpServer) -> None:
    known = known_of(read(reader(server, "/in/a.csv")))
    [unchanged] = read(reader(server, "/in/a.csv"), known)
    assert isinstance(unchanged, Unchanged)
    assert {unchanged.key: unchanged.validators} == known
    assert not isinstance(read(reader(server, "/in/a.csv"), known, force=True)[0], Unchanged)


def test_a_change_of_the_same_size_in_the_same_second_is_noticed(server: SftpServer) -> None:
    file = server.folder / "quick"
    file.write_bytes(b"1")
    known = known_of(read(reader(server, "/quick")))
    file.write_bytes(b"2")
    assert read_one(reader(server, "/quick"), known)[1] == b"2"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/in/*.csv", ["in/a.csv", "in/b.csv", "in/a.csv"]),
        ("/in/**/*.csv", ["in/a.csv", "in/b.csv", "in/deep/d.csv", "in/a.csv"]),
        ("/*/b.csv", ["in/b.csv"]),
        ("in/[ab].csv", ["in/a.csv", "in/b.csv"]),
        ("*.csv", ["top.csv"]),
    ],
)
def test_a_pattern_gives_every_file_in_order(server: SftpServer, pattern: str, expected: list[str]) -> None:
    found = [one for one in read(reader(server, pattern)) if not isinstance(one, Unchanged)]
    assert [content.decode() for _, content in found] == expected
    assert [item.key for item, _ in found] == sorted(item.key for item, _ in found)


def test_an_exact_name_wins_over_a_pattern(server: SftpServer) -> None:
    names = ("rep[1].txt", "rep1.txt", "rep2.txt")
    for name in names:
        settle(_written(server.folder / "in" / name, name.encode()))
    try:
        for pattern, expected in (("rep[1].txt", ["rep[1].txt"]), ("rep[12].txt", ["rep1.txt", "rep2.txt"])):
            for path in (f"/in/{pattern}", f"in/{pattern}"):
                found = [one for one in read(reader(server, path)) if not isinstance(one, Unchanged)]
                assert [content.decode() for _, content in found] == expected
    finally:
        for name in names:
            (server.folder / "in" / name).unlink()


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_missing_files_and_directories_are_reported(server: SftpServer) -> None:
    for path in ("/none", "/none/*", "/in/*.parquet", "/top.csv/x"):
        failed = failure(reader(server, path))
        assert (failed.category, failed.transient) == (ErrorCategory.SOURCE, False), path
    assert failure(reader(server, "/in")).category is ErrorCategory.CONFIG


def test_a_directory_with_a_name_that_is_not_utf8_is_reported_only_where_it_must_be_listed(tmp_path: Path) -> None:
    for name in (b"a.csv", b"b\xe4.txt"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.write_bytes(b"1")
        settle(path)
    with sftp_server(tmp_path) as server:
        failed = failure(reader(server, "/*.csv"))
        assert (failed.category, failed.transient) == (ErrorCategory.SOURCE, False)
        assert "contains a name that is not UTF-8" in failed.sentence
        assert read_one(reader(server, "/a.csv"))[1] == b"1"


def test_a_server_that_checks_its_clients_is_answered_while_the_caller_is_busy(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(CONTENT)
    settle(tmp_path / "big")
    with sftp_server(tmp_path, keepalive_seconds=0.1) as server:
        opened = reader(server, "/big")
        item = next(opened.items({}, False))
        assert isinstance(item, Item)
        parts = [next(item.chunks)]
        time.sleep(1)
        assert b"".join([*parts, *item.chunks]) == CONTENT
        opened.close()


def _grow(file: Path) -> None:
    with file.open("ab") as output:
        output.write(b"more")
    settle(file)


def _shrink(file: Path) -> None:
    os.truncate(file, len(CONTENT) - 5)
    settle(file)


@pytest.mark.parametrize("change", [_grow, _shrink, os.utime])
def test_a_file_that_changes_while_it_is_read_is_a_failure(server: SftpServer, change: object) -> None:
    file = server.folder / "changing"
    file.write_bytes(CONTENT)
    settle(file)
    opened = reader(server, "/changing")
    item = next(opened.items({}, False))
    assert isinstance(item, Item)
    next(item.chunks)
    assert callable(change)
    change(file)
    with pytest.raises(FetchFailure) as caught:
        list(item.chunks)
    assert (caught.value.category, caught.value.transient) == (ErrorCategory.SOURCE, True)
    opened.close()


def test_limits_are_enforced(server: SftpServer) -> None:
    assert "1,000 bytes that max_bytes" in failure(reader(server, "/big", max_bytes=1000)).sentence
    server.hangs.set()
    try:
        began = time.monotonic()
        failed = failure(reader(server, "/big", seconds=0.8))
    finally:
        server.hangs.clear()
    assert time.monotonic() - began < 2.5
    assert (failed.category, failed.transient) == (ErrorCategory.NETWORK, True)
    assert "0.8 s that timeout_seconds" in failed.sentence
