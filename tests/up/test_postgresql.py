"""`spine up --database`: the databases on a PostgreSQL server, and what is said of one that cannot be used."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from spine.up.postgresql import PREFECT_URL, SPINE_URL, PostgresqlServer, postgresql_server
from spine.up.waiting import UpError
from sqlalchemy import make_url

from tests.support.postgres import MACHINE_URL
from tests.support.prefect_database import is_fit_for_prefect
from tests.support.processes import free_port
from tests.support.web import WEB
from tests.up.support import assert_one_sentence, running_up, spine, spine_up

PASSWORD = "a-password-that-nobody-prints"


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("nonsense", "not a URL"),
        ("mysql://a@db", "not mysql"),
        ("sqlite:///a.db", "not sqlite"),
        ("postgresql://a@db/mine", "without a database"),
        ("postgresql://a@db?application_name=x", "not application_name"),
    ],
)
def test_what_names_no_server_is_refused(given: str, part: str) -> None:
    with pytest.raises(UpError, match=part):
        postgresql_server(given, True, {})


@pytest.mark.parametrize("variable", [SPINE_URL, PREFECT_URL, "PREFECT_API_DATABASE_CONNECTION_URL"])
def test_a_variable_that_names_another_database_is_refused(variable: str) -> None:
    with pytest.raises(UpError, match=f"--database and {variable} both"):
        postgresql_server("postgresql://a@db", True, {variable: "postgresql://b@other/x"})


def test_both_get_their_urls_and_flows_no_password() -> None:
    environ = {"PGPASSWORD": PASSWORD, "PATH": "/bin"}
    postgresql_server("postgres://desk@db:5433?sslmode=require", True, environ).set_variables(environ)
    spine, prefect = make_url(environ[SPINE_URL]), make_url(environ[PREFECT_URL])
    assert (spine.database, spine.password, spine.query) == ("spine", PASSWORD, {"sslmode": "require"})
    assert (prefect.database, prefect.password, prefect.query) == ("prefect", PASSWORD, {"ssl": "require"})
    assert {"PGPASSWORD", "PATH"} & set(environ) == {"PATH"}


def test_an_existing_prefect_keeps_its_own_database() -> None:
    environ: dict[str, str] = {}
    server = postgresql_server("postgresql://a@db", False, environ)
    server.set_variables(environ)
    assert (server.names, PREFECT_URL in environ) == (("spine",), False)


@pytest.fixture
def administrator() -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    if not is_fit_for_prefect():
        pytest.skip("no PostgreSQL with pg_trgm on this machine")
    with psycopg.connect(MACHINE_URL, autocommit=True) as connection:
        yield connection


@pytest.fixture
def server_of(
    administrator: psycopg.Connection[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], PostgresqlServer]]:
    """Makes a role with an attribute such as CREATEDB, and gives the machine's server as that role sees it."""
    suffix = uuid4().hex[:10]
    names = (f"spine_{suffix}", f"prefect_{suffix}")
    monkeypatch.setattr("spine.up.postgresql.SPINE", names[0])
    monkeypatch.setattr("spine.up.postgresql.PREFECT", names[1])
    with ExitStack() as cleanup:

        def make(attribute: str) -> PostgresqlServer:
            role = f"spine_test_{uuid4().hex[:10]}"
            create = sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}")
            administrator.execute(create.format(sql.Identifier(role), sql.SQL(attribute), sql.Literal(PASSWORD)))
            cleanup.callback(administrator.execute, sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
            for name in names:
                drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
                cleanup.callback(administrator.execute, drop)
            url = make_url(MACHINE_URL).set(username=role, password=PASSWORD)._replace(database=None)
            return postgresql_server(url.render_as_string(hide_password=False), True, {})

        yield make


def test_missing_databases_are_created_once(server_of: Callable[[str], PostgresqlServer]) -> None:
    server = server_of("CREATEDB")
    assert server.create_missing() == list(server.names)
    assert server.create_missing() == []
    with psycopg.connect(server.url.set(database=server.names[1]).render_as_string(hide_password=False)) as made:
        assert made.execute("SELECT extname FROM pg_extension WHERE extname = 'pg_trgm'").fetchone()
        assert made.execute("SHOW server_encoding").fetchone() == ("UTF8",)


def test_the_right_that_is_lacking_is_named(
    server_of: Callable[[str], PostgresqlServer], administrator: psycopg.Connection[tuple[Any, ...]]
) -> None:
    server = server_of("NOCREATEDB")
    spine, prefect = (sql.Identifier(name) for name in server.names)
    role = sql.Identifier(str(server.url.username))
    with pytest.raises(UpError, match="give it CREATEDB"):
        server.create_missing()
    for name in (spine, prefect):
        administrator.execute(sql.SQL("CREATE DATABASE {}").format(name))
    with pytest.raises(UpError, match="may not create tables"):
        server.create_missing()
    administrator.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(spine))
    with pytest.raises(UpError, match="permission denied for database"):
        server.create_missing()
    administrator.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(spine, role))
    in_prefect = make_url(MACHINE_URL).set(database=server.names[1]).render_as_string(hide_password=False)
    with psycopg.connect(in_prefect, autocommit=True) as connection:
        connection.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(role))
        with pytest.raises(UpError, match="extension pg_trgm"):
            server.create_missing()
        connection.execute(sql.SQL("REVOKE CREATE ON SCHEMA public FROM {}").format(role))
    administrator.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(prefect, role))
    assert server.create_missing() == []


def test_a_server_that_is_down_or_refuses_is_named_without_its_password(tmp_path: Path) -> None:
    port = free_port()
    given = f"postgresql://desk:{PASSWORD}@127.0.0.1:{port}"
    done = spine_up("--home", str(tmp_path / "home"), "--database", given)
    assert_one_sentence(done, f"PostgreSQL at 127.0.0.1:{port}", "cannot be used")
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.slow
def test_spine_up_keeps_everything_on_the_server(tmp_path: Path) -> None:
    if not is_fit_for_prefect():
        pytest.skip("no PostgreSQL with pg_trgm on this machine")
    if taken := databases() & {"spine", "prefect"}:
        pytest.skip(f"this machine has the database {taken.pop()}")
    server = make_url(MACHINE_URL)._replace(database=None).render_as_string(hide_password=False)
    home, ports = tmp_path / "home", (free_port(), free_port())
    try:
        for turn in ("first", "second"):
            with running_up(home, tmp_path / turn, *ports, options=("--database", server)) as started:
                started.wait_ready()
                assert "Databases   PostgreSQL" in started.output
                assert ("created spine and prefect" in started.output) == (turn == "first")
                key = (home / "api-key").read_text().strip()
                runs = WEB.get(f"{started.api}/api/v1/workflows/runs", headers={"X-API-Key": key})
                assert runs.status_code == 200
                listed = spine("keys", "list", SPINE_HOME=str(home))
                assert "admin" in listed.stdout, listed.stderr
                started.stop()
        assert not list(home.rglob("*.db"))
    finally:
        with psycopg.connect(MACHINE_URL, autocommit=True) as connection:
            for name in ("spine", "prefect"):
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def databases() -> set[str]:
    """The names of the databases of the machine's server."""
    with psycopg.connect(MACHINE_URL) as connection:
        return {str(name) for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}
