"""TLS modes do what they say, shown with servers whose certificates are right, unknown, or another host's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from api.connections.trying import Trial, try_connection
from tests.connections.servers import PASSWORD, USER, TlsServer, mariadb_with_tls, postgresql_with_tls
from tests.connections.support import target

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
