"""The routes of connections: the whole API in this process, on either database."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine import main
from spine.auth.bootstrap import ensure_admin_key
from spine.connections.health_check import MOST_CONCURRENT_CHECKS, SECONDS_FOR_A_CHECK, check_health
from spine.settings import Settings

from tests.connections.misbehaving import postgresql_that_stalls
from tests.connections.servers import PASSWORD, USER, TlsServer, postgresql_with_tls, silent_server
from tests.connections.support import target
from tests.support.databases import migrate
from tests.support.processes import free_port
from tests.support.stack import ADMIN_KEY
from tests.support.variants import one_by_default

PATH = "/sources/connections"
# No response may contain these.
PLAIN, WRONG = "pl41n-s3cr3t", "wr0ng-s3cr3t"


@dataclass
class Registry:
    """The API as a client sees it, and the text of every response."""

    app: FastAPI
    client: httpx.AsyncClient
    responses: list[str] = field(default_factory=list)

    async def send(self, method: str, path: str, status: int = 200, **sent: Any) -> Any:
        """The body of a response with this status."""
        response = await self.client.request(method, path, **sent)
        self.responses.append(f"{response.headers} {response.text}")
        assert response.status_code == status, response.text
        return response.json()

    async def create(self, **fields: Any) -> dict[str, Any]:
        """Register a connection and read it."""
        made = await self.send("POST", PATH, 201, json=body(**fields))
        assert made["status"] == "created"
        return await self.show(made["id"])

    async def refuse(self, status: int, **fields: Any) -> str:
        """The reason why a connection is refused; nothing is stored and no secret is repeated."""
        before = await self.send("GET", PATH)
        refused = await self.send("POST", PATH, status, json=body(**fields))
        assert PLAIN not in self.responses[-1]
        assert await self.send("GET", PATH) == before
        return str(refused["detail"])

    async def show(self, connection: str) -> dict[str, Any]:
        """One connection."""
        return dict(await self.send("GET", f"{PATH}/{connection}"))

    async def check(self, made: dict[str, Any]) -> dict[str, Any]:
        """Test a connection, and check that the result is stored as its health."""
        result = await self.send("POST", f"{PATH}/{made['id']}/test")
        shown = await self.show(made["id"])
        status = "HEALTHY" if result["success"] else "UNHEALTHY"
        assert (shown["health_status"], shown["health_message"]) == (status, result["message"])
        assert shown["last_health_check_at"] > (made["last_health_check_at"] or made["created_at"])
        assert (result["latency_ms"] is not None) is result["success"]
        return dict(result)


def body(**fields: Any) -> dict[str, Any]:
    at = {"db_type": "postgresql", "host": "db.example.com", "port": 5432, "database": "desk"}
    return {"name": f"connection-{uuid4().hex[:8]}", **at, **fields}


@pytest.fixture(scope="module", params=one_by_default(["sqlite", "postgresql"]))
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A migrated database with the admin key, for an API that may reach this machine."""
    given: dict[str, Any] = {"home": tmp_path_factory.mktemp("home"), "api_key": ADMIN_KEY, "follow_runs": False}
    given |= {"send_alerts": False, "allow_private_addresses": True, "prefect_deadline_seconds": 1}
    with request.getfixturevalue("postgresql_databases").lend() as url:
        made = Settings(**given, database_url={"sqlite": None, "postgresql": url}[request.param])
        migrate(made.sqlalchemy_url)
        ensure_admin_key(made)
        yield made


@pytest.fixture(scope="module")
async def started(settings: Settings) -> AsyncIterator[Registry]:
    """The API in this process, with Prefect unreachable."""
    with pytest.MonkeyPatch.context() as patched, temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        # The log of this process is pytest's.
        patched.setattr(main, "configure_logging", lambda _: None)
        app = main.create_app(settings)
        base, key = "http://spine/api/v1", {"X-API-Key": ADMIN_KEY}
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base, headers=key)
        async with app.router.lifespan_context(app), client:
            yield Registry(app, client)


@pytest.fixture
async def registry(started: Registry) -> AsyncIterator[Registry]:
    """The API with no sources or connections."""
    started.responses.clear()
    yield started
    for path in ("/sources", PATH):
        for one in (await started.send("GET", path, params={"limit": 100}))["data"]:
            await started.send("DELETE", f"{path}/{one['id']}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """A PostgreSQL with passwords and TLS."""
    with postgresql_with_tls(tmp_path_factory.mktemp("server")) as started:
        yield started


def at(server: TlsServer, **fields: Any) -> dict[str, Any]:
    """The fields of a connection to the server, without its password."""
    return {"host": "127.0.0.1", "port": server.port, "database": "postgres", "username": USER, **fields}


async def test_a_new_connection_has_every_field_of_the_contract_and_no_reference(registry: Registry) -> None:
    made = await registry.create(name="The warehouse", username="reader", password_ref="env:SPINE_SECRET_DESK_PASSWORD")
    assert await registry.show("The warehouse") == await registry.show(made["id"].lower()) == made
    assert made.pop("created_at") <= made.pop("updated_at")
    assert len(made.pop("id")) == 26
    given = {**body(), "name": "The warehouse", "username": "reader"}
    defaults = {"pool_size": 5, "pool_overflow": 10, "ssl_mode": "require", "enabled": True}
    health = {"health_status": "UNKNOWN", "health_message": None, "last_health_check_at": None}
    assert made == {**given, **defaults, **health, "active_connections": 0, "idle_connections": 0}
    assert not [text for text in registry.responses if "SPINE_SECRET_DESK_PASSWORD" in text]


async def test_a_name_can_be_used_once(registry: Registry) -> None:
    made = await registry.create(name="taken")
    assert "'taken'" in await registry.refuse(409, name="taken", port=1)
    assert await registry.show("taken") == made


async def test_lists_are_newest_first_and_filtered(registry: Registry) -> None:
    first, second = await registry.create(db_type="MySQL"), await registry.create(enabled=False)
    for query, wanted in (
        ({}, [second, first]),
        ({"db_type": "MYSQL"}, [first]),
        ({"enabled": False}, [second]),
        ({"enabled": False, "db_type": "mysql"}, []),
        ({"offset": 1, "limit": 1}, [first]),
    ):
        assert (await registry.send("GET", PATH, params=query))["data"] == wanted, query
    await registry.send("GET", PATH, 422, params={"db_type": "dbase"})


async def test_an_unknown_source_or_fetch_is_404(registry: Registry) -> None:
    for name in ("nobody", "01J00000000000000000000001", "%00"):
        for method, path in (("GET", name), ("DELETE", name), ("POST", f"{name}/test")):
            await registry.send(method, f"{PATH}/{path}", 404)


@pytest.mark.parametrize("name", ["password", "Password", "pwd", "secret", "token"])
async def test_a_plain_password_is_refused_with_the_field_to_use_instead(registry: Registry, name: str) -> None:
    result = await registry.refuse(422, **{name: PLAIN})
    assert f"{name} would be stored in plain text; send password_ref instead" in result
    assert "env:NAME" in result


@pytest.mark.parametrize(
    ("status", "reason", "fields"),
    [
        *((422, "password_ref", {"password_ref": ref}) for ref in (PLAIN, f"prefect:{PLAIN}/x", "env:SPINE_API_KEY")),
        (422, "host", {"host": f"reader:{PLAIN}@db.example.com"}),
        (422, "database", {"database": f"postgresql://reader:{PLAIN}@h/desk"}),
        (422, "options", {"options": {"password": PLAIN}}),
        (422, "port", {"port": PLAIN}),
        (422, "db_type", {"db_type": "dbase"}),
        (422, "host must be given for postgresql", {"host": None}),
        (422, "host", {"host": "a.example.com,b.example.com"}),
        (422, "ssl_mode", {"ssl_mode": "prefer"}),
        (422, "enabled", {"enabled": "yes"}),
        (400, "name", {"name": "with/slash"}),
        (400, "looks like an id", {"name": "01J00000000000000000000001"}),
        (400, "169.254.169.254 is", {"host": "169.254.169.254"}),
        (400, "SPINE_FILE_ROOTS", {"db_type": "sqlite", "host": None, "port": None, "database": "/etc/desk.db"}),
    ],
)
async def test_an_invalid_connection_is_refused(
    registry: Registry, status: int, reason: str, fields: dict[str, Any]
) -> None:
    assert reason in await registry.refuse(status, **fields)


async def test_a_private_address_is_neither_registered_nor_connected_to_unless_allowed(
    registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await registry.create(host="127.0.0.1", port=19)
    closed = settings.model_copy(update={"allow_private_addresses": False})
    monkeypatch.setitem(registry.app.state._state, "settings", closed)
    for host in ("127.0.0.1", "localhost", "10.0.0.1", "::1", "2130706433"):
        assert "SPINE_ALLOW_PRIVATE_ADDRESSES" in await registry.refuse(400, host=host)
    assert "SPINE_ALLOW_PRIVATE_ADDRESSES" in (await registry.check(made))["message"]


async def test_a_connection_cannot_be_deleted_while_a_source_uses_it(registry: Registry) -> None:
    made = await registry.create(name="used")
    source = {"name": "Desk rates", "source_type": "database", "config": {"connection": "used", "query": "SELECT 1"}}
    await registry.send("POST", "/sources", 201, json=source)
    refused = await registry.send("DELETE", f"{PATH}/used", 409)
    assert "the source 'Desk rates'" in refused["detail"]
    assert await registry.show("used") == made
    await registry.send("DELETE", "/sources/Desk rates")
    assert (await registry.send("DELETE", f"{PATH}/used"))["status"] == "deleted"
    await registry.send("GET", f"{PATH}/{made['id']}", 404)


@pytest.mark.parametrize("kind", ["env", "file"])
async def test_a_password_is_resolved_for_each_test(
    registry: Registry, server: TlsServer, kind: str, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def store(password: str) -> None:
        monkeypatch.setenv("SPINE_SECRET_DESK_PASSWORD", password)
        (secrets / "password").write_text(f"{password}\n")

    ref = {"env": "env:SPINE_SECRET_DESK_PASSWORD", "file": f"file:{secrets / 'password'}"}[kind]
    made = await registry.create(**at(server, password_ref=ref))
    missing = await registry.check(made)
    assert (missing["success"], ref in missing["message"]) == (False, True)
    store(WRONG)
    wrong = await registry.check(made)
    assert (wrong["success"], "password authentication failed" in wrong["message"]) == (False, True), wrong
    store(PASSWORD)
    right = await registry.check(made)
    assert (right["success"], right["message"].startswith("PostgreSQL ")) == (True, True), right
    assert 0 < right["latency_ms"] < 60_000
    assert not [text for text in registry.responses if WRONG in text or PASSWORD in text]


async def test_the_trusted_authority_is_resolved_too(registry: Registry, server: TlsServer, secrets: Path) -> None:
    (secrets / "ca.pem").write_text(server.authority)
    (secrets / "password").write_text(PASSWORD)
    refs = {"password_ref": f"file:{secrets / 'password'}", "ssl_cert_ref": f"file:{secrets / 'ca.pem'}"}
    made = await registry.create(**at(server, ssl_mode="verify-full", **refs))
    assert (await registry.check(made))["success"]
    other = await registry.create(**at(server, ssl_mode="verify-full", **refs, database="nowhere"))
    assert 'database "nowhere" does not exist' in (await registry.check(other))["message"]


async def test_an_unreachable_secret_store_does_not_change_the_health(registry: Registry) -> None:
    made = await registry.create(password_ref="prefect:spine-desk-password")
    result = await registry.send("POST", f"{PATH}/{made['id']}/test")
    assert (result["success"], result["latency_ms"]) == (False, None)
    assert "Prefect" in result["message"]
    assert await registry.show(made["id"]) == made


@pytest.mark.parametrize("settings", [pytest.param("sqlite", marks=pytest.mark.slow)], indirect=True)
async def test_silent_servers_fail_in_time_and_block_nothing_else(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPINE_SECRET_DESK_PASSWORD", PASSWORD)
    with silent_server() as port:
        fields = {"host": "127.0.0.1", "port": port, "username": "u", "password_ref": "env:SPINE_SECRET_DESK_PASSWORD"}
        made = [await registry.create(**fields, db_type=kind) for kind in ("postgresql", "mysql", "oracle")]
        started_at = time.monotonic()
        checking = [asyncio.create_task(registry.check(one)) for one in made]
        await asyncio.sleep(1)
        shown = [await registry.show(one["id"]) for one in made]
        assert [one["active_connections"] for one in shown] == [1, 1, 1]
        assert time.monotonic() - started_at < 5
        result = await asyncio.gather(*checking)
        assert time.monotonic() - started_at < SECONDS_FOR_A_CHECK + 2
    assert not [one for one in result if one["success"]]


async def test_too_many_concurrent_tests_do_not_change_the_health(registry: Registry) -> None:
    made = await registry.create(host="127.0.0.1", port=free_port())
    with postgresql_that_stalls() as port:
        slow = [asyncio.create_task(check_health(target(port=port), seconds=3)) for _ in range(MOST_CONCURRENT_CHECKS)]
        await asyncio.sleep(0)
        result = await registry.send("POST", f"{PATH}/{made['id']}/test")
        await asyncio.gather(*slow)
    assert (result["success"], result["latency_ms"], made["name"] in result["message"]) == (False, None, True), result
    assert await registry.show(made["id"]) == made


async def test_a_missing_driver_reports_what_to_install(registry: Registry) -> None:
    made = await registry.create(db_type="db2", host="127.0.0.1", port=50000)
    assert "install prefect-spine[db2]" in (await registry.check(made))["message"]


async def test_a_disabled_connection_is_not_tested(registry: Registry) -> None:
    made = await registry.create(name="resting", enabled=False)
    refused = await registry.send("POST", f"{PATH}/resting/test", 409)
    assert refused["detail"] == "The connection 'resting' is disabled."
    assert await registry.show("resting") == made
