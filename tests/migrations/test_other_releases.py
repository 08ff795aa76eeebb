"""Tables of other releases, and databases that cannot be used: each answer says what to do, and none is 500."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from fastapi import FastAPI
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.cli import app as command_line
from spine.migrations.migrate import alembic_config, current, upgrade
from spine.settings import Settings
from spine.table_revisions import known_revisions, newest_revision
from spine.tables import Base
from sqlalchemy import URL, text
from typer.testing import CliRunner

from tests.support.api_here import app_here
from tests.support.databases import in_database, migrate
from tests.support.postgres import fresh_database
from tests.support.processes import free_port
from tests.support.stack import ADMIN_KEY, settings_of
from tests.support.variants import one_by_default

OLDER = known_revisions()[-2]


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """An API's settings, with a database that has all tables and the admin key."""
    if request.param == "sqlite":
        yield settings_of(tmp_path, None, SPINE_FOLLOW_RUNS="false")
    else:
        with fresh_database(request.getfixturevalue("postgresql_url")) as url:
            yield settings_of(tmp_path, url, SPINE_FOLLOW_RUNS="false")


def execute(url: URL, *statements: str) -> None:
    with in_database(url) as connection:
        for statement in statements:
            connection.execute(text(statement))


def remove_all(url: URL) -> None:
    with in_database(url) as connection:
        Base.metadata.drop_all(connection)
    execute(url, "DROP TABLE alembic_version")


@asynccontextmanager
async def nowhere() -> AsyncIterator[None]:
    """The address of a Prefect that does not run."""
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        yield


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    """The application without a server, and a client of it."""
    app = app_here(settings)
    async with (
        nowhere(),
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://127.0.0.1",
            headers={"X-API-Key": ADMIN_KEY},
        ) as client,
    ):
        yield app, client


@pytest.mark.parametrize(
    ("settings", "state"),
    [
        *one_by_default(
            [("sqlite", "older"), ("sqlite", "no tables"), ("postgresql", "older"), ("postgresql", "no tables")]
        ),
    ],
    indirect=["settings"],
)
async def test_older_tables_are_503_with_the_command_on_every_route_until_they_are_upgraded(
    settings: Settings, state: str
) -> None:
    url = settings.sqlalchemy_url
    if state == "older":
        command.downgrade(alembic_config(url), OLDER)
    else:
        remove_all(url)
    async with serving(settings) as (app, client):
        paths = app.openapi()["paths"]
        tried = [(method, path) for path in paths if path.startswith("/api/v1") for method in paths[path]]
        assert len(tried) > 40
        for method, path in tried:
            answer = await client.request(method, path.replace("{", "").replace("}", ""), json={})
            assert answer.status_code == 503, (method, path, answer.text)
            assert "spine db upgrade" in answer.text
            assert answer.headers["retry-after"]
        ready = (await client.get("/health/ready")).json()
        assert ready["status"] == "not_ready"
        assert "spine db upgrade" in ready["database"]["detail"]
        upgrade(url)
        if state == "no tables":
            # The admin key is activated soon.
            assert (await client.get("/api/v1/sources")).status_code in (200, 401)
        else:
            assert (await client.get("/api/v1/sources")).json()["data"] == []
        assert newest_revision() in (await client.get("/health/ready")).json()["database"]["detail"]


async def test_the_tables_of_a_later_release_are_used_and_stay(settings: Settings) -> None:
    url = settings.sqlalchemy_url
    execute(url, "UPDATE alembic_version SET version_num = '9999'", "ALTER TABLE sources ADD COLUMN later TEXT")
    upgrade(url)
    assert current(url) == "9999"
    async with serving(settings) as (_, client):
        assert (await client.get("/api/v1/sources")).json()["data"] == []
        detail = (await client.get("/health/ready")).json()["database"]["detail"]
        assert "9999, of a later release" in detail


def test_the_revisions_that_are_known_without_alembic_are_those_of_alembic() -> None:
    script = ScriptDirectory.from_config(alembic_config(Settings().sqlalchemy_url))
    assert script.get_heads() == [newest_revision()]
    assert known_revisions() == tuple(reversed([found.revision for found in script.walk_revisions()]))


async def read_sources(settings: Settings) -> str:
    """The detail of the answer to a request, which is 503."""
    async with serving(settings) as (_, client):
        for path in ("/api/v1/sources", "/api/v1/alerts"):
            answer = await client.get(path)
            assert answer.status_code == 503, answer.text
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["database"]["detail"] == answer.json()["detail"]
        return str(answer.json()["detail"])


async def test_a_database_that_does_not_exist_or_refuses_the_role_is_named_without_the_password(
    postgresql_url: str, tmp_path: Path
) -> None:
    def elsewhere(url: URL) -> Settings:
        database = url.render_as_string(hide_password=False)
        return Settings.model_validate({"home": tmp_path, "database_url": database, "follow_runs": False})

    server = Settings.model_validate({"home": tmp_path, "database_url": postgresql_url}).sqlalchemy_url
    missing = await read_sources(elsewhere(server.set(database="spine_missing", password="hunter2")))
    assert 'database "spine_missing" does not exist' in missing
    stranger = await read_sources(elsewhere(server.set(username="spine_nobody", password="hunter2")))
    assert "spine_nobody" in stranger
    assert "hunter2" not in missing + stranger
    nowhere = await read_sources(elsewhere(server.set(host="127.0.0.1", port=free_port(), query={})))
    assert "out of reach" in nowhere


@pytest.mark.slow
async def test_a_read_only_database_says_so_and_is_not_500(postgresql_url: str, tmp_path: Path) -> None:
    with fresh_database(postgresql_url) as database:
        settings = await asyncio.to_thread(settings_of, tmp_path, database, SPINE_FOLLOW_RUNS="false")
        name = settings.sqlalchemy_url.database
        with psycopg.connect(postgresql_url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        async with serving(settings) as (_, client):
            assert (await client.get("/api/v1/alerts")).status_code == 200
            alert = {"severity": "WARNING", "title": "late", "message": "late", "source": "test"}
            answer = await client.post("/api/v1/alerts", json=alert)
            assert (answer.status_code, "read-only" in answer.json()["detail"]) == (503, True), answer.text


def invoke(home: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setenv("SPINE_HOME", str(home))
    monkeypatch.delenv("SPINE_DATABASE_URL", raising=False)
    done = CliRunner().invoke(command_line, arguments)
    return done.exit_code, done.output


def test_the_commands_of_keys_make_no_database_and_say_which_one_they_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    for arguments in (
        ("list",),
        ("create", "desk"),
        ("expire", "desk", "never"),
        ("revoke", "desk"),
        ("rotate-secret",),
    ):
        code, output = invoke(home, monkeypatch, "keys", *arguments)
        assert code == 1
        assert f"There is no database at {home / 'spine.db'}" in output
    assert not home.exists()
    assert invoke(home, monkeypatch, "db", "check")[0] == 1
    assert not home.exists()
    migrate(Settings(home=home).sqlalchemy_url)
    code, output = invoke(home, monkeypatch, "keys", "create", "desk")
    assert (code, f"Database: {home / 'spine.db'}" in output) == (0, True)
    command.downgrade(alembic_config(Settings(home=home).sqlalchemy_url), OLDER)
    code, output = invoke(home, monkeypatch, "keys", "list")
    assert (code, "spine db upgrade" in output) == (1, True)


def test_db_upgrade_current_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, code, words in [
        ("upgrade", 0, f"revision {newest_revision()}, the newest; before: no tables"),
        ("upgrade", 0, "nothing to do"),
        ("current", 0, f"revision {newest_revision()}, the newest"),
        ("check", 0, newest_revision()),
    ]:
        done = invoke(tmp_path, monkeypatch, "db", arguments)
        assert (done[0], words in done[1]) == (code, True), done
    command.downgrade(alembic_config(Settings(home=tmp_path).sqlalchemy_url), OLDER)
    assert f"revision {OLDER}" in invoke(tmp_path, monkeypatch, "db", "current")[1]
    code, output = invoke(tmp_path, monkeypatch, "db", "check")
    assert (code, f"older (revision {OLDER})" in output) == (1, True)
