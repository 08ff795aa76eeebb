"""The health check of a connection."""

import asyncio
import socket
import sqlite3
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pymysql
import pytest
from spine.connections.health_check import MOST_CONCURRENT_CHECKS, check_health
from spine.connections.resolved_connection import ResolvedConnection
from spine.connections.usage import open_sessions
from spine.errors import Unavailable

from tests.connections.misbehaving import postgresql_that_stalls
from tests.connections.servers import PASSWORD, USER, postgresql_with_tls, silent_server
from tests.connections.support import failure, sqlite_target, target
from tests.support.processes import free_port, wait_until
from tests.support.variants import one_by_default

PRODUCTS = {"postgresql": "PostgreSQL", "mysql": "MariaDB", "sqlite": "SQLite"}


async def test_a_healthy_database_is_reported_with_its_version_and_latency(
    database: ResolvedConnection,
) -> None:
    result = await check_health(database)
    assert result.success, result.message
    assert result.message.startswith(f"{PRODUCTS[database.db_type]} ")
    assert result.latency_ms is not None
    assert result.latency_ms > 0


async def test_a_user_with_more_rights_than_reading_is_warned_of(postgresql: ResolvedConnection) -> None:
    # The owner of the test's server is a superuser.
    owner = await check_health(postgresql)
    assert "is a superuser" in owner.message
    assert [warning for warning in owner.warnings if warning in owner.message]
    url = f"host={postgresql.host} port={postgresql.port} dbname={postgresql.database} user={postgresql.username}"
    roles = {f"spine_{uuid4().hex[:8]}": grant for grant in ("", "pg_read_server_files", "pg_execute_server_program")}
    with psycopg.connect(f"{url} password={postgresql.password or ''}", autocommit=True) as admin:
        for role, grant in roles.items():
            admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'" + (f" IN ROLE {grant}" if grant else ""))
        try:
            found = [
                (await check_health(replace(postgresql, username=role, password="x"))).message.partition("Warning: ")[2]
                for role in roles
            ]
        finally:
            for role in roles:
                admin.execute(f"DROP ROLE {role}")
    assert found[0] == ""
    assert "may read files of the server" in found[1]
    assert "may run programs on the server" in found[2]


async def test_an_administrator_of_mariadb_is_warned_of(mariadb: ResolvedConnection) -> None:
    assert "ALL ON *.*" in (await check_health(mariadb)).message


async def test_a_missing_database_is_reported_in_the_words_of_the_server(database: ResolvedConnection) -> None:
    result = await check_health(replace(database, database="nowhere"))
    assert not result.success
    assert "nowhere" in result.message


@pytest.mark.parametrize("db_type", one_by_default(["postgresql", "mysql", "oracle"]))
async def test_a_silent_server_fails_within_the_time_limit(db_type: str) -> None:
    with silent_server() as port:
        began = time.monotonic()
        result = await check_health(target(db_type=db_type, port=port, username="u", password="p"), seconds=3)
        assert time.monotonic() - began < 6
    assert not result.success


@pytest.mark.slow
async def test_a_server_that_stalls_after_the_login_occupies_no_thread() -> None:
    with postgresql_that_stalls() as port:
        stalled = target(port=port, username="u", password="p")
        began = time.monotonic()
        result = await check_health(stalled, seconds=3)
        assert (result.success, "within" in result.message) == (False, True), result.message
        await asyncio.to_thread(wait_until, lambda: open_sessions(stalled.id) == 0, "the session to end", 2)
        assert time.monotonic() - began < 6


@pytest.mark.slow
async def test_slow_databases_do_not_make_another_one_unhealthy(sqlite: ResolvedConnection) -> None:
    with postgresql_that_stalls() as port:
        stalled = target(port=port, username="u", password="p")
        slow = [asyncio.create_task(check_health(stalled, seconds=3)) for _ in range(MOST_CONCURRENT_CHECKS - 1)]
        await asyncio.sleep(0)
        assert (await check_health(sqlite, seconds=3)).success
        slow.append(asyncio.create_task(check_health(stalled, seconds=3)))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match=sqlite.name):
            await check_health(sqlite, seconds=3)
        assert not [result for result in await asyncio.gather(*slow) if result.success]
        await asyncio.to_thread(wait_until, lambda: open_sessions(stalled.id) == 0, "the sessions to end", 3)
    assert (await check_health(sqlite, seconds=3)).success


@pytest.mark.slow
@pytest.mark.parametrize("first", ["silent", "closed"])
async def test_every_address_of_a_host_name_is_tried_within_the_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    def found(_: str, port: int, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in ("127.0.0.2", "127.0.0.1")]

    with postgresql_with_tls(tmp_path) as server, ExitStack() as stack:
        if first == "silent":
            stack.enter_context(socket.create_server(("127.0.0.2", server.port)))
        # No real host name has these addresses on every machine.
        monkeypatch.setattr(socket, "getaddrinfo", found)
        at = {"host": "db.example.com", "port": server.port, "username": USER, "password": PASSWORD}
        result = await check_health(target(**at, ssl_mode="require"), seconds=6)
    assert result.success, result.message


@pytest.mark.parametrize("db_type", ["postgresql", "mysql", "oracle"])
async def test_a_closed_port_is_reported(db_type: str) -> None:
    result = await check_health(target(db_type=db_type, port=free_port(), username="u", password="p"))
    assert not result.success
    assert "refused" in result.message.lower() or "cannot connect" in result.message.lower(), result.message


@pytest.mark.parametrize("db_type", ["postgresql", "mysql", "oracle"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254"])
async def test_a_forbidden_address_is_not_connected_to(db_type: str, host: str) -> None:
    with silent_server() as port:
        forbidden = target(db_type=db_type, host=host, port=port, username="u", password="p", allow_private=False)
        result = await check_health(forbidden, seconds=3)
    assert not result.success
    assert "address" in result.message, result.message


async def test_the_metadata_address_is_never_connected_to(postgresql: ResolvedConnection) -> None:
    result = await check_health(replace(postgresql, host="169.254.169.254"))
    assert "never allowed" in result.message


@pytest.mark.parametrize("password", ["s3cr3t", "two  spaces", "a\ttab", "blank at the end ", "two\nlines"])
def test_a_password_is_removed_from_the_message_of_a_server(password: str) -> None:
    said = f"cannot  use {password}: {password}\nDETAIL: none"
    assert target(password=password).scrubbed(said) == "cannot use ***: *** DETAIL: none"


async def test_a_mysql_password_may_contain_any_character(mariadb: ResolvedConnection) -> None:
    user, password = f"reader_{uuid4().hex[:8]}", "pässwörd-Ω-密"
    login: dict[str, Any] = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.username, "autocommit": True}
    with pymysql.connect(**login) as owner, owner.cursor() as cursor:
        cursor.execute(f"CREATE USER {user}@'%%' IDENTIFIED BY %s", (password,))
        try:
            cursor.execute(f"GRANT SELECT ON {mariadb.database}.* TO {user}@'%'")
            right, wrong = (replace(mariadb, username=user, password=one) for one in (password, f"{password}!"))
            results = [await check_health(one) for one in (right, wrong)]
        finally:
            cursor.execute(f"DROP USER {user}@'%'")
    assert [result.success for result in results] == [True, False], results


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
async def test_an_unexpected_error_is_reported_by_its_type(database: ResolvedConnection) -> None:
    # Invalid UTF-8 in the environment becomes a surrogate in Python.
    result = await check_health(replace(database, password="s3cr3t-\udcff"))
    assert (result.success, "UnicodeEncodeError" in result.message) == (False, True), result.message
    assert failure(replace(database, password="s3cr3t-\udcff"), "SELECT 1").category == "SOURCE"
    assert "udcff" not in result.message
    assert "s3cr3t" not in result.message


async def test_a_missing_driver_reports_what_to_install() -> None:
    result = await check_health(target(db_type="db2"))
    assert (result.success, "install prefect-spine[db2]" in result.message) == (False, True)


async def test_a_driver_that_cannot_be_loaded_reports_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ibm_db.py").write_text("raise ImportError('libxml2.so.2 was not found')")
    monkeypatch.syspath_prepend(tmp_path)
    result = await check_health(target(db_type="db2"))
    assert (result.success, "libxml2.so.2 was not found" in result.message) == (False, True), result.message


async def test_a_sqlite_file_outside_of_the_roots_is_not_opened(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    sqlite3.connect(tmp_path / "outside.db").close()
    (inside / "link.db").symlink_to(tmp_path / "outside.db")
    for name in ("../outside.db", str(tmp_path / "outside.db"), "link.db"):
        result = await check_health(replace(sqlite_target(inside / "x.db"), database=name))
        assert not result.success, name
    result = await check_health(sqlite_target(inside / "new.db"))
    assert not result.success
    assert not (inside / "new.db").exists()
