"""What a try of a connection tells."""

import asyncio
import socket
import sqlite3
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pymysql
import pytest
from spine.connections.health_check import MOST_AT_ONCE, try_connection
from spine.connections.resolved_connection import ConnectionTarget
from spine.connections.usage import open_sessions
from spine.errors import Unavailable

from tests.connections.misbehaving import postgresql_that_stalls
from tests.connections.servers import PASSWORD, USER, postgresql_with_tls, silent_server
from tests.connections.support import failure, sqlite_target, target
from tests.support.processes import free_port, wait_until

PRODUCTS = {"postgresql": "PostgreSQL", "mysql": "MariaDB", "sqlite": "SQLite"}


async def test_a_database_that_answers_is_named_with_its_version_and_how_long_it_took(
    database: ConnectionTarget,
) -> None:
    trial = await try_connection(database)
    assert trial.success, trial.message
    assert trial.message.startswith(f"{PRODUCTS[database.db_type]} ")
    assert trial.latency_ms is not None
    assert trial.latency_ms > 0


async def test_a_database_that_is_not_there_is_told_in_the_words_of_the_server(database: ConnectionTarget) -> None:
    trial = await try_connection(replace(database, database="nowhere"))
    assert not trial.success
    assert "nowhere" in trial.message


@pytest.mark.parametrize("db_type", ["postgresql", "mysql", "oracle"])
async def test_a_server_that_never_answers_is_given_up_within_the_time_limit(db_type: str) -> None:
    with silent_server() as port:
        began = time.monotonic()
        trial = await try_connection(target(db_type=db_type, port=port, username="u", password="p"), seconds=3)
        assert time.monotonic() - began < 6
    assert not trial.success


async def test_a_server_that_stalls_after_the_login_keeps_no_thread() -> None:
    with postgresql_that_stalls() as port:
        stalled = target(port=port, username="u", password="p")
        began = time.monotonic()
        trial = await try_connection(stalled, seconds=3)
        assert (trial.success, "within" in trial.message) == (False, True), trial.message
        await asyncio.to_thread(wait_until, lambda: open_sessions(stalled.id) == 0, "the session to end", 2)
        assert time.monotonic() - began < 6


async def test_a_database_is_not_blamed_for_others_that_are_slow(sqlite: ConnectionTarget) -> None:
    with postgresql_that_stalls() as port:
        stalled = target(port=port, username="u", password="p")
        slow = [asyncio.create_task(try_connection(stalled, seconds=3)) for _ in range(MOST_AT_ONCE - 1)]
        await asyncio.sleep(0)
        assert (await try_connection(sqlite, seconds=3)).success
        slow.append(asyncio.create_task(try_connection(stalled, seconds=3)))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match=sqlite.name):
            await try_connection(sqlite, seconds=3)
        assert not [trial for trial in await asyncio.gather(*slow) if trial.success]
        await asyncio.to_thread(wait_until, lambda: open_sessions(stalled.id) == 0, "the sessions to end", 3)
    assert (await try_connection(sqlite, seconds=3)).success


@pytest.mark.parametrize("first", ["silent", "closed"])
async def test_every_address_of_a_name_is_tried_within_the_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    def found(_: str, port: int, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in ("127.0.0.2", "127.0.0.1")]

    with postgresql_with_tls(tmp_path) as server, ExitStack() as stack:
        if first == "silent":
            stack.enter_context(socket.create_server(("127.0.0.2", server.port)))
        # A name with these addresses would be needed on every machine.
        monkeypatch.setattr(socket, "getaddrinfo", found)
        at = {"host": "db.example.com", "port": server.port, "username": USER, "password": PASSWORD}
        trial = await try_connection(target(**at, ssl_mode="require"), seconds=6)
    assert trial.success, trial.message


@pytest.mark.parametrize("db_type", ["postgresql", "mysql", "oracle"])
async def test_a_port_that_nobody_listens_on_is_told(db_type: str) -> None:
    trial = await try_connection(target(db_type=db_type, port=free_port(), username="u", password="p"))
    assert not trial.success
    assert "refused" in trial.message.lower() or "cannot connect" in trial.message.lower(), trial.message


@pytest.mark.parametrize("db_type", ["postgresql", "mysql", "oracle"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254"])
async def test_an_address_that_is_not_allowed_is_not_connected_to(db_type: str, host: str) -> None:
    with silent_server() as port:
        forbidden = target(db_type=db_type, host=host, port=port, username="u", password="p", allow_private=False)
        trial = await try_connection(forbidden, seconds=3)
    assert not trial.success
    assert "address" in trial.message, trial.message


async def test_the_metadata_address_is_never_connected_to(postgresql: ConnectionTarget) -> None:
    trial = await try_connection(replace(postgresql, host="169.254.169.254"))
    assert "never allowed" in trial.message


@pytest.mark.parametrize("password", ["s3cr3t", "two  spaces", "a\ttab", "blank at the end ", "two\nlines"])
def test_a_secret_is_not_in_what_a_server_says(password: str) -> None:
    said = f"cannot  use {password}: {password}\nDETAIL: none"
    assert target(password=password).scrubbed(said) == "cannot use ***: *** DETAIL: none"


async def test_a_mysql_password_may_have_any_letter(mariadb: ConnectionTarget) -> None:
    user, password = f"reader_{uuid4().hex[:8]}", "pässwörd-Ω-密"
    login: dict[str, Any] = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.username, "autocommit": True}
    with pymysql.connect(**login) as owner, owner.cursor() as cursor:
        cursor.execute(f"CREATE USER {user}@'%%' IDENTIFIED BY %s", (password,))
        try:
            cursor.execute(f"GRANT SELECT ON {mariadb.database}.* TO {user}@'%'")
            right, wrong = (replace(mariadb, username=user, password=one) for one in (password, f"{password}!"))
            trials = [await try_connection(one) for one in (right, wrong)]
        finally:
            cursor.execute(f"DROP USER {user}@'%'")
    assert [trial.success for trial in trials] == [True, False], trials


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
async def test_what_a_driver_did_not_foresee_is_told_by_its_kind(database: ConnectionTarget) -> None:
    # What no bytes of UTF-8 are in the environment is half a letter here.
    trial = await try_connection(replace(database, password="s3cr3t-\udcff"))
    assert (trial.success, "UnicodeEncodeError" in trial.message) == (False, True), trial.message
    assert failure(replace(database, password="s3cr3t-\udcff"), "SELECT 1").category == "SOURCE"
    assert "udcff" not in trial.message
    assert "s3cr3t" not in trial.message


async def test_a_missing_driver_says_what_to_install() -> None:
    trial = await try_connection(target(db_type="db2"))
    assert (trial.success, "install prefect-spine[db2]" in trial.message) == (False, True)


async def test_a_driver_that_cannot_be_loaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ibm_db.py").write_text("raise ImportError('libxml2.so.2 is not there')")
    monkeypatch.syspath_prepend(tmp_path)
    trial = await try_connection(target(db_type="db2"))
    assert (trial.success, "libxml2.so.2 is not there" in trial.message) == (False, True), trial.message


async def test_a_sqlite_file_outside_of_the_open_folders_is_not_opened(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    sqlite3.connect(tmp_path / "outside.db").close()
    (inside / "link.db").symlink_to(tmp_path / "outside.db")
    for name in ("../outside.db", str(tmp_path / "outside.db"), "link.db"):
        trial = await try_connection(replace(sqlite_target(inside / "x.db"), database=name))
        assert not trial.success, name
    trial = await try_connection(sqlite_target(inside / "new.db"))
    assert not trial.success
    assert not (inside / "new.db").exists()
