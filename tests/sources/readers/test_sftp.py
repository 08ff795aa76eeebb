"""SFTP: only from the server whose key is known, and whole files only."""

import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.sources.readers.base import Item, Reader, Unchanged

from tests.sources.readers.sftp_server import PASSWORD, USER, SftpServer, sftp_server
from tests.sources.readers.support import (
    CLOSED,
    CONTENT,
    OPEN,
    config_of,
    failure,
    known_of,
    limits,
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


def reader(
    server: SftpServer, path: str, *, seconds: float = 60, max_bytes: int | None = None, **fields: str
) -> Reader:
    given = {"host": "127.0.0.1", "port": server.port, "username": USER, "host_key": server.public_key, "path": path}
    login = {} if "private_key_ref" in fields else {"password_ref": "env:PW"}
    secrets = {"password_ref": PASSWORD, "private_key_ref": server.user_key.export_private_key().decode()}
    config = config_of("sftp", **{**given, **login, **fields})
    return config.open_reader({name: secrets[name] for name in config.secret_refs()}, OPEN, limits(max_bytes, seconds))


def test_a_file_is_read_with_what_is_known_of_it(server: SftpServer) -> None:
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


def test_an_unchanged_file_is_not_read_but_by_force(server: SftpServer) -> None:
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


def test_what_is_not_there_or_no_file_is_told(server: SftpServer) -> None:
    for path in ("/none", "/none/*", "/in/*.parquet", "/top.csv/x"):
        failed = failure(reader(server, path))
        assert (failed.category, failed.transient) == (ErrorCategory.SOURCE, False), path
    assert failure(reader(server, "/in")).category is ErrorCategory.CONFIG


def test_a_name_that_is_no_utf8_is_told_where_it_stands_in_the_way(tmp_path: Path) -> None:
    for name in (b"a.csv", b"b\xe4.txt"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.write_bytes(b"1")
        settle(path)
    with sftp_server(tmp_path) as server:
        failed = failure(reader(server, "/*.csv"))
        assert (failed.category, failed.transient) == (ErrorCategory.SOURCE, False)
        assert "is not UTF-8; a folder with such a name in it" in failed.sentence
        assert read_one(reader(server, "/a.csv"))[1] == b"1"


@pytest.mark.parametrize("form", ["line", "with comment", "fingerprint"])
def test_the_key_of_the_server_is_known_by_line_or_fingerprint(server: SftpServer, form: str) -> None:
    key = {
        "line": server.public_key,
        "with comment": f"{server.public_key} me@desk",
        "fingerprint": server.fingerprint,
    }[form]
    assert read_one(reader(server, "/top.csv", host_key=key))[1] == b"top.csv"


@pytest.mark.parametrize("form", ["line", "fingerprint", "other type"])
def test_a_server_with_another_key_is_told_nothing(server: SftpServer, form: str) -> None:
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256" if form == "other type" else "ssh-ed25519")
    key = other.get_fingerprint() if form == "fingerprint" else other.export_public_key().decode().strip()
    server.logins.clear()
    failed = failure(reader(server, "/top.csv", host_key=key))
    assert (failed.category, failed.transient) == (ErrorCategory.AUTH, False)
    assert (server.fingerprint in failed.sentence) is (form != "other type")
    assert not server.logins


@pytest.mark.parametrize("key_type", ["ssh-rsa", "ecdsa-sha2-nistp384"])
def test_a_fingerprint_of_a_key_of_any_type_is_found(tmp_path: Path, key_type: str) -> None:
    (tmp_path / "a").write_bytes(b"1")
    settle(tmp_path / "a")
    with sftp_server(tmp_path, key_type) as server:
        assert read_one(reader(server, "/a", host_key=server.fingerprint))[1] == b"1"
        assert read_one(reader(server, "/a"))[1] == b"1"


@pytest.mark.parametrize("form", ["openssh", "pkcs8-pem", "pkcs1-pem"])
def test_a_private_key_opens_the_server_in_any_form(
    server: SftpServer, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    if form == "pkcs1-pem":
        monkeypatch.setattr(server, "user_key", asyncssh.generate_private_key("ssh-rsa"))
    text = server.user_key.export_private_key(form).decode()
    config = config_of(
        "sftp",
        host="127.0.0.1",
        port=server.port,
        username=USER,
        host_key=server.public_key,
        path="/top.csv",
        private_key_ref="env:KEY",
    )
    assert read_one(config.open_reader({"private_key_ref": text}, OPEN, limits()))[1] == b"top.csv"


def test_a_wrong_password_or_key_is_told_without_showing_it(server: SftpServer) -> None:
    wrong_key = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    given = {"host": "127.0.0.1", "port": server.port, "username": USER, "host_key": server.public_key, "path": "/a"}
    tries = {"password_ref": "s3cr3t-wrong", "private_key_ref": wrong_key}
    for name, secret in tries.items():
        config = config_of("sftp", **given, **{name: "env:X"})
        failed = failure(config.open_reader({name: secret}, OPEN, limits()))
        assert (failed.category, failed.transient) == (ErrorCategory.AUTH, False)
        assert secret not in failed.sentence
    config = config_of("sftp", **given, private_key_ref="env:X")
    with pytest.raises(FetchFailure, match="is no private key") as caught:
        config.open_reader({"private_key_ref": "s3cr3t-wrong"}, OPEN, limits())
    assert "s3cr3t" not in caught.value.sentence


def _grow(file: Path) -> None:
    with file.open("ab") as output:
        output.write(b"more")
    settle(file)


def _shrink(file: Path) -> None:
    os.truncate(file, len(CONTENT) - 5)
    settle(file)


@pytest.mark.parametrize("change", [_grow, _shrink, os.utime])
def test_a_file_that_changes_while_it_is_read_is_not_handed_out_as_whole(server: SftpServer, change: object) -> None:
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


def test_limits_hold(server: SftpServer) -> None:
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


def test_a_forbidden_address_is_not_connected_to(server: SftpServer) -> None:
    server.logins.clear()
    config = config_of(
        "sftp",
        host="localhost",
        port=server.port,
        username=USER,
        host_key=server.public_key,
        path="/top.csv",
        password_ref="env:PW",
    )
    failed = failure(config.open_reader({"password_ref": PASSWORD}, CLOSED, limits()))
    assert failed.category is ErrorCategory.CONFIG
    assert "SPINE_ALLOW_PRIVATE_ADDRESSES" in failed.sentence
    assert not server.logins


def test_nobody_there_is_a_failure_of_the_network(server: SftpServer) -> None:
    failed = failure(reader(server, "/a", port=1))  # type: ignore[arg-type]
    assert (failed.category, failed.transient) == (ErrorCategory.NETWORK, True)
