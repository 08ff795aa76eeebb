"""TLS modes do what they say, shown with servers whose certificates are right, unknown, or another host's."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import trustme
from spine.connections.health_check import Trial, try_connection
from spine.connections.resolved_connection import ConnectionTarget

from tests.connections.misbehaving import mysql_that_wants_the_password
from tests.connections.servers import PASSWORD, USER, TlsServer, mariadb_with_tls, postgresql_with_tls
from tests.connections.support import failure, read, target

SERVERS = {"postgresql": (postgresql_with_tls, "postgres"), "mysql": (mariadb_with_tls, "desk")}
Servers = tuple[str, TlsServer, TlsServer]


@pytest.fixture(scope="module", params=list(SERVERS))
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The type, a server with a certificate for its address, and one with another host's."""
    start, _ = SERVERS[request.param]
    folders: list[Path] = [tmp_path_factory.mktemp(name) for name in ("right", "wrong")]
    with start(folders[0]) as right, start(folders[1], "elsewhere.example.com") as wrong:
        yield request.param, right, wrong


async def try_(kind: str, server: TlsServer, ssl_mode: str, ca: str | None = None, **more: Any) -> Trial:
    fields = {"username": USER, "password": PASSWORD, "port": server.port, "database": SERVERS[kind][1], **more}
    return await try_connection(target(db_type=kind, ssl_mode=ssl_mode, ca=ca, **fields))


async def test_each_mode_asks_for_as_much_as_it_says(servers: Servers) -> None:
    kind, right, wrong = servers
    stranger = trustme.CA().cert_pem.bytes().decode()
    takes = {
        ("disable", "right", None): True,
        ("require", "right", None): True,
        # It asks for secrecy only, not for whom it speaks with.
        ("require", "wrong", stranger): True,
        ("verify-ca", "right", right.authority): True,
        ("verify-ca", "right", stranger): False,
        ("verify-ca", "right", None): False,
        ("verify-ca", "wrong", wrong.authority): True,
        ("verify-full", "right", right.authority): True,
        ("verify-full", "wrong", wrong.authority): False,
        ("verify-full", "right", stranger): False,
    }
    found = {}
    for mode, which, ca in takes:
        trial = await try_(kind, right if which == "right" else wrong, mode, ca)
        found[mode, which, ca] = trial.success
        if not trial.success:
            assert "certificate" in trial.message.lower(), trial.message
    assert found == takes


async def test_a_wrong_password_is_told_and_not_shown(servers: Servers) -> None:
    kind, right, _ = servers
    trial = await try_(kind, right, "require", password="wr0ng-s3cr3t")
    assert not trial.success
    assert USER in trial.message
    assert "wr0ng-s3cr3t" not in trial.message
    assert trial.latency_ms is None


async def test_what_is_no_certificate_is_told(servers: Servers) -> None:
    kind, right, _ = servers
    trial = await try_(kind, right, "verify-full", "this is no PEM")
    assert not trial.success
    assert "PEM" in trial.message


IS_SECRET = {
    "postgresql": "SELECT CASE WHEN ssl THEN 1 ELSE 0 END AS secret FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    "mysql": "SELECT variable_value <> '' AS secret FROM information_schema.session_status "
    "WHERE variable_name = 'SSL_CIPHER'",
}


@pytest.mark.parametrize(("mode", "secret"), [("disable", 0), ("require", 1)])
async def test_the_server_sees_the_mode_that_was_asked_for(servers: Servers, mode: str, secret: int) -> None:
    kind, right, _ = servers
    login = {"username": USER, "password": PASSWORD, "port": right.port, "database": SERVERS[kind][1]}
    content = read(target(db_type=kind, ssl_mode=mode, **login), IS_SECRET[kind])
    assert pq.read_table(io.BytesIO(content)).to_pylist() == [{"secret": secret}]


@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
async def test_a_server_without_tls_is_not_spoken_to_in_plain_text_unless_asked(
    request: pytest.FixtureRequest, name: str
) -> None:
    found: ConnectionTarget = request.getfixturevalue(name)
    assert (await try_connection(found)).success
    for mode in ("require", "verify-ca", "verify-full"):
        trial = await try_connection(replace(found, ssl_mode=mode))
        assert (trial.success, "SSL" in trial.message) == (False, True), trial.message
        assert failure(replace(found, ssl_mode=mode), "SELECT 1").category == "CONFIG"


@pytest.mark.parametrize("way", ["mysql_clear_password", "dialog"])
async def test_a_mysql_password_is_not_told_to_a_server_that_asks_for_it_without_tls(way: str) -> None:
    with mysql_that_wants_the_password(way) as (port, sent):
        trial = await try_connection(target(db_type="mysql", port=port, username=USER, password=PASSWORD), seconds=3)
    assert (trial.success, "plain text" in trial.message) == (False, True), trial.message
    assert sent == [b""]
