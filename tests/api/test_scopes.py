"""Scopes: the documented matrix says what each route needs, and each route asks for exactly that."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from spine.auth.callers import Scope
from spine.http.scopes import FIELD, needs, scope_of
from spine.migrations.migrate import alembic_config
from spine.settings import Settings
from sqlalchemy import URL, create_engine, text

from tests.api.test_auth import make_key, routes_of_the_app
from tests.support.api_here import api_here
from tests.support.processes import PROJECT, free_port
from tests.support.stack import Api
from tests.support.variants import one_in
from tests.support.web import WEB

GUIDE = PROJECT / "api" / "guides" / "conventions.md"
ORDER = [scope.value for scope in Scope]
_ROW = re.compile(r"^\| `(read|write|configure|admin)` \| (.*) \|$", re.MULTILINE)
_ROUTE = re.compile(r"`(GET|POST|PATCH|DELETE) (/\S*)`")

Route = tuple[str, str]


def documented() -> dict[Route, str]:
    """The scope of each route that the matrix names, by method and path."""
    rows = _ROW.findall(GUIDE.read_text(encoding="utf-8"))
    assert [scope for scope, _ in rows] == ORDER
    return {route: scope for scope, routes in rows for route in _ROUTE.findall(routes)}


def needed(method: str, path: str, matrix: dict[Route, str]) -> str:
    """What the matrix says about a route; a `/` at the end of a path means the same path."""
    route = (method, path.removeprefix("/api/v1").rstrip("/"))
    return matrix.get(route, "read") if method in ("GET", "HEAD") else matrix[route]


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API without Prefect, which answers 503 where it would need it."""
    folder = tmp_path_factory.mktemp("lonely")
    settings = {"SPINE_PREFECT_DEADLINE_SECONDS": "0.05"}
    with api_here(f"http://127.0.0.1:{free_port()}/api", folder, folder / "home", None, **settings) as started:
        yield started


@pytest.fixture(scope="module")
def routes() -> list[Route]:
    """Every route below `/api/v1`, also those that the OpenAPI document leaves out."""
    found = [(method, path) for path, method in routes_of_the_app() if path.startswith("/api/v1/")]
    assert len(found) > 50
    return found


def test_the_matrix_has_every_route_that_changes_something(routes: list[Route]) -> None:
    changing = {(method, path.removeprefix("/api/v1").rstrip("/")) for method, path in routes}
    named = {route for route in documented() if route[0] != "GET"}
    assert {route for route in changing if route[0] not in ("GET", "HEAD")} == named
    assert set(documented()) <= changing


def test_the_openapi_document_shows_the_scopes_of_the_matrix(lonely: Api) -> None:
    matrix = documented()
    for path, operations in WEB.get(f"{lonely.url}/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/api/v1/"):
                assert operation[FIELD] == needed(method.upper(), path, matrix), (method, path)


def test_each_route_refuses_the_scope_below_and_accepts_its_own(lonely: Api, routes: list[Route]) -> None:
    matrix = documented()
    clients = {scope: lonely.as_key(make_key(lonely, f"only-{scope}", scope)) for scope in ORDER}
    for method, path in routes:
        scope = needed(method, path, matrix)
        address = re.sub(r"{\w+}", "nobody", path.removeprefix("/api/v1"))
        for other in ORDER[: ORDER.index(scope) + 1][-2:]:
            answer = clients[other].request(method, address)
            assert (answer.status_code == 403) is (ORDER.index(other) < ORDER.index(scope)), (method, path, other)
            assert answer.status_code != 401
            if answer.status_code == 403 and method != "HEAD":
                assert f"'{scope}'" in answer.json()["detail"]


@pytest.mark.parametrize("ending", one_in(3, ["%0A", "%0A/", "%00", "%0D%0A", "%C2%A0"]))
def test_no_spelling_of_a_path_reaches_a_route_without_its_scope(lonely: Api, routes: list[Route], ending: str) -> None:
    reader = lonely.as_key(make_key(lonely, f"only-reads{ending.replace('%', '-').replace('/', '-')}", "read"))
    for method, path in routes:
        if method not in ("GET", "HEAD"):
            address = re.sub(r"{\w+}", "nobody", path.removeprefix("/api/v1"))
            assert reader.request(method, f"{address}{ending}").status_code in (403, 404, 405), (method, path)


def test_a_route_that_declares_no_scope_needs_admin_to_change_something() -> None:
    assert scope_of("POST", None) is scope_of("DELETE", object()) is Scope.ADMIN
    assert scope_of("GET", None) is scope_of("HEAD", object()) is Scope.READ
    assert needs(Scope.WRITE) == {FIELD: "write"}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """An empty database."""
    if request.param == "sqlite":
        yield Settings(home=tmp_path).sqlalchemy_url
        return
    from tests.support.postgres import fresh_database

    with fresh_database(request.getfixturevalue("postgresql_url")) as database:
        yield Settings.model_validate({"database_url": database}).sqlalchemy_url


def test_the_migration_keeps_what_keys_could_do_and_the_way_back_gives_nobody_more(url: URL) -> None:
    command.upgrade(alembic_config(url), "0005")
    engine = create_engine(url.set(drivername=url.drivername.replace("+aiosqlite", "")))
    before = {"reader": ["read"], "writer": ["write"], "both": ["read", "write"], "admin": ["admin", "write"]}
    insert = "INSERT INTO api_keys (id, name, key_hash, scopes, created_at) VALUES (:name, :name, :name, :scopes, :at)"
    with engine.begin() as connection:
        for name, scopes in before.items():
            values = {"name": name, "scopes": json.dumps(scopes), "at": "2026-01-05 10:00:00+00:00"}
            connection.execute(text(insert), values)
    command.upgrade(alembic_config(url), "head")

    def read(column: str) -> dict[str, object]:
        with engine.connect() as connection:
            rows = connection.execute(text(f"SELECT name, {column} FROM api_keys"))  # noqa: S608
            return {name: json.loads(value) if isinstance(value, str) else value for name, value in rows}

    after = {name: [one.replace("write", "configure") for one in scopes] for name, scopes in before.items()}
    assert read("scopes") == after
    assert set(read("domains").values()) == {None}
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_keys SET domains = '[\"finra.*\"]' WHERE name = 'writer'"))
    command.downgrade(alembic_config(url), "0005")
    assert read("scopes") == before
    with engine.connect() as connection:
        revoked = connection.execute(text("SELECT name FROM api_keys WHERE revoked_at IS NOT NULL"))
        assert [name for (name,) in revoked] == ["writer"]
    engine.dispose()
