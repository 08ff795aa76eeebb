"""Why an SFTP server cannot be used: each reason has its own sentence, and only those that may pass are tried again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

from tests.connections.misbehaving import serving
from tests.sources.readers.sftp_server import SftpServer, reader, sftp_server
from tests.sources.readers.support import failure

OLD: dict[str, tuple[dict[str, Any], str]] = {
    "key exchange": (
        {"kex_algs": ["diffie-hellman-group1-sha1"]},
        "127.0.0.1 has no key exchange algorithm that Spine accepts; it offers only diffie-hellman-group1-sha1",
    ),
    "cipher": (
        {"encryption_algs": ["3des-cbc"]},
        "127.0.0.1 has no cipher that Spine accepts; it offers only 3des-cbc.",
    ),
    "MAC": (
        {"mac_algs": ["hmac-md5"], "encryption_algs": ["aes128-ctr"]},
        "127.0.0.1 has no MAC algorithm that Spine accepts; it offers only hmac-md5.",
    ),
    "host key": ({}, "127.0.0.1 has no host key of a type that Spine accepts; it offers only ssh-dss."),
}


@pytest.mark.parametrize("which", OLD)
def test_a_server_without_a_modern_algorithm_is_told_apart_from_one_with_another_key(
    tmp_path: Path, which: str
) -> None:
    algorithms, sentence = OLD[which]
    key_type = "ssh-dss" if which == "host key" else "ssh-ed25519"
    with sftp_server(tmp_path, key_type, **algorithms) as server:
        failed = failure(reader(server, "/a", host_key=server.fingerprint))
        assert sentence in failed.sentence
        assert (failed.category, failed.transient) == (ErrorCategory.CONFIG, False)
        assert not server.logins


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    with sftp_server(tmp_path_factory.mktemp("sftp")) as started:
        yield started


def test_a_method_of_login_that_the_server_does_not_have_is_no_wrong_password(
    server: SftpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "this password" in failure(login(server, "wr0ng")).sentence
    monkeypatch.setattr(server, "accepts_passwords", False)
    without_passwords = failure(login(server, "wr0ng"))
    monkeypatch.setattr(server, "accepts_passwords", True)
    monkeypatch.setattr(server, "accepts_keys", False)
    without_keys = failure(reader(server, "/a", private_key_ref="env:KEY"))
    assert [one.sentence for one in (without_passwords, without_keys)] == [
        f"127.0.0.1 does not accept a {method} from desk; it requires another method of login."
        for method in ("password", "key")
    ]
    assert {one.category for one in (without_passwords, without_keys)} == {ErrorCategory.AUTH}


def login(server: SftpServer, password: str) -> Any:
    """A reader with a password."""
    from tests.sources.readers.support import OPEN, config_of, limits

    fields = {"host": "127.0.0.1", "port": server.port, "username": "desk", "host_key": server.public_key, "path": "/a"}
    return config_of("sftp", **fields, password_ref="env:PW").open_reader({"password_ref": password}, OPEN, limits())


@contextmanager
def sending(data: bytes) -> Iterator[SftpServer]:
    """A server that sends these bytes and ends the connection, with the address of an SFTP server."""

    def answer(connection: Any) -> None:
        connection.sendall(data)
        connection.recv(4096)
        connection.close()

    with serving(answer) as port:
        keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(2)]
        yield SftpServer(Path(), keys[0], keys[1], port)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"220 ProFTPD ready\r\n", "it speaks FTP or SMTP (it sent '220 ProFTPD ready')"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it speaks HTTP"),
        (b"\x15\x03\x01\0\x02\x02\x46", "it speaks TLS"),
        (b"SSH-1.5-old\r\n", "speaks a version of SSH before 2.0"),
    ],
)
def test_a_server_of_another_protocol_is_named(data: bytes, sentence: str) -> None:
    with sending(data) as server:
        failed = failure(reader(server, "/a"))
    assert sentence in failed.sentence
    assert (failed.category, failed.transient) == (ErrorCategory.CONFIG, False)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"Exceeded MaxStartups\r\n", "127.0.0.1 closed the connection with the message 'Exceeded MaxStartups'."),
        (b"", "127.0.0.1 closed the connection without the greeting of an SSH server."),
        (b"SSH-2.0-x\r\n", "127.0.0.1 closed the connection during the login."),
    ],
)
def test_a_server_that_closes_the_connection_is_tried_again(data: bytes, sentence: str) -> None:
    with sending(data) as server:
        failed: FetchFailure = failure(reader(server, "/a"))
    assert failed.sentence == sentence
    assert (failed.category, failed.transient) == (ErrorCategory.NETWORK, True)
