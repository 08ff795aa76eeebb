"""SFTP servers: the host key is checked before anything secret is sent, and only allowed addresses are used."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest
from spine.egress.fetch_failure import FetchFailure
from spine.egress.guarded_call import GuardedCall
from spine.schemas import ErrorCategory
from spine.sources.readers.sftp_connection import EventLoop

from tests.sources.readers.sftp_server import PASSWORD, USER, SftpServer, reader, sftp_server
from tests.sources.readers.support import CLOSED, OPEN, config_of, failure, limits, read_one, settle


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    folder = tmp_path_factory.mktemp("sftp")
    (folder / "top.csv").write_bytes(b"top.csv")
    settle(folder / "top.csv")
    with sftp_server(folder) as started:
        yield started


@pytest.mark.parametrize("form", ["line", "with comment", "fingerprint"])
def test_the_host_key_is_given_as_a_line_or_a_fingerprint(server: SftpServer, form: str) -> None:
    key = {
        "line": server.public_key,
        "with comment": f"{server.public_key} me@desk",
        "fingerprint": server.fingerprint,
    }[form]
    assert read_one(reader(server, "/top.csv", host_key=key))[1] == b"top.csv"


@pytest.mark.parametrize("form", ["line", "fingerprint", "other type"])
def test_no_login_is_sent_to_a_server_with_another_key(server: SftpServer, form: str) -> None:
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


def test_a_fingerprint_is_found_on_a_server_with_several_keys(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    settle(tmp_path / "a")
    with sftp_server(tmp_path, "ssh-rsa", other_key_types=["ssh-ed25519", "ecdsa-sha2-nistp521"]) as server:
        assert read_one(reader(server, "/a", host_key=server.fingerprint))[1] == b"1"
        failed = failure(reader(server, "/a", host_key=f"SHA256:{'x' * 43}"))
        assert failed.category is ErrorCategory.AUTH
        assert server.fingerprint in failed.sentence


def test_everything_that_the_connection_runs_is_guarded(server: SftpServer) -> None:
    guarded = GuardedCall(allow_private=False, limits=limits())
    loop = EventLoop(guarded, limits())
    with pytest.raises(OSError, match="SPINE_ALLOW_PRIVATE_ADDRESSES"):
        loop.run(asyncio.open_connection("127.0.0.1", server.port))
    assert guarded.refusal("127.0.0.1") is not None
    loop.close(None)
    guarded.close()


@pytest.mark.parametrize("form", ["openssh", "pkcs8-pem", "pkcs1-pem"])
def test_a_private_key_may_have_any_pem_format(server: SftpServer, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
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


def test_a_wrong_password_or_key_is_reported_without_showing_it(server: SftpServer) -> None:
    wrong_key = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    given = {"host": "127.0.0.1", "port": server.port, "username": USER, "host_key": server.public_key, "path": "/a"}
    tries = {"password_ref": "s3cr3t-wrong", "private_key_ref": wrong_key}
    for name, secret in tries.items():
        config = config_of("sftp", **given, **{name: "env:X"})
        failed = failure(config.open_reader({name: secret}, OPEN, limits()))
        assert (failed.category, failed.transient) == (ErrorCategory.AUTH, False)
        assert secret not in failed.sentence
    config = config_of("sftp", **given, private_key_ref="env:X")
    with pytest.raises(FetchFailure, match="does not point to a PEM private key") as caught:
        config.open_reader({"private_key_ref": "s3cr3t-wrong"}, OPEN, limits())
    assert "s3cr3t" not in caught.value.sentence


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


def test_a_server_that_is_not_running_is_a_network_failure(server: SftpServer) -> None:
    failed = failure(reader(server, "/a", port=1))  # type: ignore[arg-type]
    assert (failed.category, failed.transient) == (ErrorCategory.NETWORK, True)
