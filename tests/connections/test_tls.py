"""Each TLS mode, with servers whose certificates are valid, unknown, or for another host."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import trustme
from spine.connections.health_check import HealthCheckResult, check_health
from spine.connections.resolved_connection import ResolvedConnection

from tests.connections.misbehaving import mysql_that_requests_the_password
from tests.connections.servers import PASSWORD, USER, TlsServer, mariadb_with_tls, postgresql_with_tls
from tests.connections.support import failure, read, target

SERVERS = {"postgresql": (postgresql_with_tls, "postgres"), "mysql": (mariadb_with_tls, "desk")}
Servers = tuple[str, TlsServer, TlsServer]


@pytest.fixture(scope="module", params=list(SERVERS))
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The type, a server with a certificate for its address, and one with a certificate for another host."""
    start, _ = SERVERS[request.param]
    folders: list[Path] = [tmp_path_factory.mktemp(name) for name in ("right", "wrong")]
    with start(folders[0]) as right, start(folders[1], "elsewhere.example.com") as wrong:
        yield request.param, right, wrong


async def check(kind: str, server: TlsServer, ssl_mode: str, ca: str | None = None, **more: Any) -> HealthCheckResult:
    fields = {"username": USER, "password": PASSWORD, "port": server.port, "database": SERVERS[kind][1], **more}
    return await check_health(target(db_type=kind, ssl_mode=ssl_mode, ca=ca, **fields))


async def test_each_mode_accepts_exactly_the_servers_it_should(servers: Servers) -> None:
    kind, right, wrong = servers
    stranger = trustme.CA().cert_pem.bytes().decode()
    expected = {
        ("disable", "right", None): True,
        ("require", "right", None): True,
        # Encryption only, without authentication of the server.
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
    for mode, which, ca in expected:
        result = await check(kind, right if which == "right" else wrong, mode, ca)
        found[mode, which, ca] = result.success
        if not result.success:
            assert "certificate" in result.message.lower(), result.message
    assert found == expected


async def test_a_wrong_password_is_reported_and_not_shown(servers: Servers) -> None:
    kind, right, _ = servers
    result = await check(kind, right, "require", password="wr0ng-s3cr3t")
    assert not result.success
    assert USER in result.message
    assert "wr0ng-s3cr3t" not in result.message
    assert result.latency_ms is None


async def test_an_invalid_certificate_is_reported(servers: Servers) -> None:
    kind, right, _ = servers
    result = await check(kind, right, "verify-full", "not a PEM certificate")
    assert not result.success
    assert "PEM" in result.message


IS_SECRET = {
    "postgresql": "SELECT CASE WHEN ssl THEN 1 ELSE 0 END AS secret FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    "mysql": "SELECT variable_value <> '' AS secret FROM information_schema.session_status "
    "WHERE variable_name = 'SSL_CIPHER'",
}


@pytest.mark.parametrize(("mode", "secret"), [("disable", 0), ("require", 1)])
async def test_the_server_sees_the_requested_mode(servers: Servers, mode: str, secret: int) -> None:
    kind, right, _ = servers
    login = {"username": USER, "password": PASSWORD, "port": right.port, "database": SERVERS[kind][1]}
    content = read(target(db_type=kind, ssl_mode=mode, **login), IS_SECRET[kind])
    assert pq.read_table(io.BytesIO(content)).to_pylist() == [{"secret": secret}]


@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
async def test_plain_text_is_used_only_if_tls_is_disabled(request: pytest.FixtureRequest, name: str) -> None:
    found: ResolvedConnection = request.getfixturevalue(name)
    assert (await check_health(found)).success
    for mode in ("require", "verify-ca", "verify-full"):
        result = await check_health(replace(found, ssl_mode=mode))
        assert (result.success, "SSL" in result.message) == (False, True), result.message
        assert failure(replace(found, ssl_mode=mode), "SELECT 1").category == "CONFIG"


@pytest.mark.parametrize("way", ["mysql_clear_password", "dialog"])
async def test_a_mysql_password_is_not_sent_in_plain_text_without_tls(way: str) -> None:
    with mysql_that_requests_the_password(way) as (port, sent):
        result = await check_health(target(db_type="mysql", port=port, username=USER, password=PASSWORD), seconds=3)
    assert (result.success, "plain text" in result.message) == (False, True), result.message
    assert sent == [b""]
