"""Queries as sources: from a registered connection to a file in the cache, without any write to the database."""

import asyncio
import hashlib
import io
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow.parquet as pq
import pymysql
import pytest
from spine.auth.domains import EVERY_DOMAIN
from spine.connections.schemas import DatabaseConnectionCreate
from spine.connections.service import create_connection, delete_connection
from spine.errors import BadRequest, Conflict
from spine.tables.base import Base
from spine.tables.connections import DatabaseConnection
from sqlalchemy import select, update

from tests.connections.servers import PASSWORD, USER, TlsServer, end_sleeping_session, postgresql_with_tls
from tests.sources.support import CALLER, Desk
from tests.support.processes import free_port

QUERY = "SELECT id, venue FROM trades ORDER BY id"
TRADES = [{"id": 1, "venue": "AAA"}, {"id": 2, "venue": "BBB"}, {"id": 3, "venue": None}]
MAKING = [
    "CREATE TABLE trades (id int, venue varchar(10))",
    "INSERT INTO trades VALUES (1, 'AAA'), (2, 'BBB'), (3, NULL)",
]
SNEAKING = {
    "postgresql": "CREATE FUNCTION sneak() RETURNS int LANGUAGE sql AS 'DELETE FROM trades; SELECT 1'",
    "mysql": "CREATE FUNCTION sneak() RETURNS int MODIFIES SQL DATA BEGIN DELETE FROM trades; RETURN 1; END",
}
# All of them begin like queries that only read.
WRITING = {
    "postgresql": ["SELECT sneak()", "WITH gone AS (DELETE FROM trades RETURNING id) SELECT * FROM gone"],
    "mysql": ["SELECT sneak()", "SELECT 1; DELETE FROM trades"],
    "sqlite": [
        "WITH one AS (SELECT 1) DELETE FROM trades",
        "WITH one AS (SELECT 1) INSERT INTO trades VALUES (9, 'X')",
    ],
}
# Spine's own database, and the database of the source.
EACH = pytest.mark.parametrize(
    ("database", "origin"),
    [("postgresql", "postgresql"), ("sqlite", "mariadb"), ("sqlite", "sqlite")],
    indirect=True,
    ids=["postgresql", "mariadb", "sqlite"],
)
WRONG = "wr0ng-s3cr3t"


@dataclass
class Origin:
    """A database with three trades: what to register, and how its owner runs a statement."""

    fields: dict[str, Any]
    run: Callable[[str], list[Any]]

    def trades(self) -> int:
        """How many trades there are."""
        return int(self.run("SELECT count(*) FROM trades")[0][0])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """A PostgreSQL that checks passwords."""
    with postgresql_with_tls(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def postgresql(server: TlsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    """A PostgreSQL with trades."""
    fields = {"db_type": "postgresql", "host": "127.0.0.1", "port": server.port, "database": "postgres"}
    login = {"host": "127.0.0.1", "port": server.port, "dbname": "postgres", "user": USER, "password": PASSWORD}
    monkeypatch.setenv("SPINE_SECRET_DESK_PASSWORD", PASSWORD)
    with psycopg.connect(**login, autocommit=True) as owner:  # type: ignore[arg-type]

        def run(statement: str) -> list[Any]:
            done = owner.execute(statement.encode())
            return done.fetchall() if done.description else []

        yield Origin({**fields, "username": USER, "password_ref": "env:SPINE_SECRET_DESK_PASSWORD"}, run)
        run("DROP TABLE trades CASCADE")
        run("DROP FUNCTION IF EXISTS sneak")


@pytest.fixture
def mariadb() -> Iterator[Origin]:
    """A MariaDB with trades, where there is one."""
    try:
        owner = pymysql.connect(host="127.0.0.1", port=3306, user="root", autocommit=True)
    except pymysql.Error:
        pytest.skip("there is no MariaDB on this machine")
    name = f"spine_test_{uuid4().hex[:12]}"
    fields = {"db_type": "mysql", "host": "127.0.0.1", "port": 3306, "database": name, "username": "root"}

    with owner, owner.cursor() as cursor:

        def run(statement: str) -> list[Any]:
            cursor.execute(statement)
            return list(cursor.fetchall())

        run(f"CREATE DATABASE {name}")
        try:
            run(f"USE {name}")
            yield Origin({**fields, "ssl_mode": "disable"}, run)
        finally:
            run(f"DROP DATABASE {name}")


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Origin]:
    """A SQLite file with trades, in the folder that sources may read."""
    with closing(sqlite3.connect(tmp_path / "files" / "desk.db", isolation_level=None)) as owner:
        yield Origin({"db_type": "sqlite", "database": "desk.db"}, lambda text: owner.execute(text).fetchall())


@pytest.fixture
def origin(request: pytest.FixtureRequest, desk: Desk) -> Origin:
    """The database that is read."""
    made: Origin = request.getfixturevalue(request.param)
    for statement in MAKING:
        made.run(statement)
    return made


async def connect(desk: Desk, **fields: Any) -> str:
    """Register a connection and return its id."""
    body = DatabaseConnectionCreate.model_validate({"name": f"connection-{uuid4().hex[:8]}", **fields})
    async with desk.context.sessions.begin() as session:
        return (await create_connection(session, desk.context.settings, CALLER, body)).id


async def source_of(desk: Desk, origin: Origin, query: str = QUERY) -> str:
    """Register a source that reads the table and return its name."""
    return await desk.register("database", {"connection": await connect(desk, **origin.fields), "query": query})


def rows(content: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
    return found


@EACH
async def test_rows_are_stored_as_parquet_and_equal_rows_are_not_a_change(desk: Desk, origin: Origin) -> None:
    name = await source_of(desk, origin)
    first = await desk.fetch(name)
    assert (first.status, first.error) == ("SUCCESS", None)
    [content] = await desk.content(name)
    assert rows(content) == TRADES
    assert (first.rows_parsed, first.content_changed, first.bytes_fetched) == (3, True, len(content))
    assert first.content_hash == hashlib.sha256(content).hexdigest()

    again = await desk.fetch(name)
    assert (again.status, again.rows_parsed, again.content_changed) == ("SUCCESS", 3, False)
    assert again.content_hash == first.content_hash
    assert len(list(desk.context.store.list())) == 1

    origin.run("UPDATE trades SET venue = 'CCC' WHERE id = 3")
    origin.run("INSERT INTO trades VALUES (4, 'DDD')")
    changed = await desk.fetch(name)
    assert (changed.rows_parsed, changed.content_changed) == (4, True)
    [content] = await desk.content(name)
    assert rows(content) == [*TRADES[:2], {"id": 3, "venue": "CCC"}, {"id": 4, "venue": "DDD"}]
    assert desk.stray_files() == []


@EACH
async def test_a_query_that_writes_is_refused_and_changes_nothing(desk: Desk, origin: Origin) -> None:
    if sneaking := SNEAKING.get(origin.fields["db_type"]):
        origin.run(sneaking)
    for query in WRITING[origin.fields["db_type"]]:
        fetched = await desk.fetch(await source_of(desk, origin, query))
        assert (fetched.status, fetched.error_category, fetched.content_hash) == ("FAILED", "CONFIG", None), query
        assert origin.trades() == 3
    with pytest.raises(BadRequest, match="must be a single query that begins"):
        await source_of(desk, origin, "DELETE FROM trades")
    assert origin.trades() == 3


@EACH
async def test_a_wrong_query_is_explained_and_the_cache_keeps_the_last_good_content(desk: Desk, origin: Origin) -> None:
    name = await source_of(desk, origin)
    good = await desk.fetch(name)
    connection = (await desk.source(name)).config["connection"]
    for query, category in (("SELECT FROM WHERE", "CONFIG"), ("SELECT id FROM nowhere", "SOURCE")):
        await desk.update(name, config={"connection": connection, "query": query})
        fetched = await desk.fetch(name)
        assert (fetched.status, fetched.error_category) == ("FAILED", category), query
        assert "reported: " in (fetched.error or "")
    assert "nowhere" in (fetched.error or "")
    assert [rows(content) for content in await desk.content(name)] == [TRADES]
    source = await desk.source(name)
    assert (source.last_content_hash, source.consecutive_failures) == (good.content_hash, 2)


async def test_a_query_that_writes_in_its_database_is_not_registered(desk: Desk) -> None:
    address: dict[str, Any] = {"host": "127.0.0.1", "port": free_port(), "database": "desk"}
    mysql, postgresql = [await connect(desk, db_type=kind, **address) for kind in ("mysql", "postgresql")]
    query = "SELECT 1 INTO OUTFILE '/srv/x'"
    with pytest.raises(BadRequest, match=r"config\.query: must not write: INTO OUTFILE"):
        await desk.register("database", {"connection": mysql, "query": query})
    name = await desk.register("database", {"connection": postgresql, "query": query})
    with pytest.raises(BadRequest, match="must not write"):
        await desk.update(name, config={"connection": mysql, "query": query})
    assert (await desk.source(name)).connection_id == postgresql


async def test_a_stopped_server_is_a_network_error(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPINE_SECRET_DESK_PASSWORD", PASSWORD)
    fields: dict[str, Any] = {"host": "127.0.0.1", "username": USER, "password_ref": "env:SPINE_SECRET_DESK_PASSWORD"}
    with postgresql_with_tls(tmp_path) as server:
        connection = await connect(desk, **fields, db_type="postgresql", port=server.port, database="postgres")
        name = await desk.register("database", {"connection": connection, "query": "SELECT 1 AS id"})
        good = await desk.fetch(name)
        ended = await desk.register("database", {"connection": connection, "query": "SELECT pg_sleep(60)"})
        broken, _ = await asyncio.gather(desk.fetch(ended), asyncio.to_thread(end_sleeping_session, server.port))
    stopped = await desk.fetch(name)
    nobody = await connect(desk, **fields, db_type="mysql", port=free_port(), database="desk")
    alone = await desk.fetch(await desk.register("database", {"connection": nobody, "query": "SELECT 1"}))
    for fetched in (broken, stopped, alone):
        assert (fetched.status, fetched.error_category) == ("FAILED", "NETWORK"), fetched.error
    assert (await desk.source(name)).last_content_hash == good.content_hash
    assert [rows(content) for content in await desk.content(name)] == [[{"id": 1}]]


@pytest.mark.parametrize("origin", ["sqlite"], indirect=True)
async def test_a_used_connection_cannot_be_deleted_and_a_disabled_one_fails(desk: Desk, origin: Origin) -> None:
    first, second = await connect(desk, name="first", **origin.fields), await connect(desk, **origin.fields)
    name = await desk.register("database", {"connection": "first", "query": QUERY})
    async with desk.context.sessions.begin() as session:
        with pytest.raises(Conflict, match=name):
            await delete_connection(session, EVERY_DOMAIN, first)
        resting = update(DatabaseConnection).where(DatabaseConnection.id == first)
        await session.execute(resting.values(enabled=False))
    fetched = await desk.fetch(name)
    assert (fetched.status, fetched.error_category) == ("FAILED", "CONFIG")
    assert fetched.error == "The connection 'first' is disabled."

    await desk.update(name, config={"connection": second, "query": QUERY})
    assert (await desk.fetch(name)).rows_parsed == 3
    async with desk.context.sessions.begin() as session:
        await delete_connection(session, EVERY_DOMAIN, first)
    for gone in ("first", first, "nobody"):
        with pytest.raises(BadRequest, match=gone):
            await desk.register("database", {"connection": gone, "query": QUERY})
        with pytest.raises(BadRequest, match=gone):
            await desk.update(name, config={"connection": gone, "query": QUERY})
    assert (await desk.source(name)).connection_id == second


@pytest.mark.parametrize("origin", ["postgresql"], indirect=True)
async def test_the_password_is_resolved_at_each_fetch_and_never_stored(
    desk: Desk, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await source_of(desk, origin)
    # The error message of the server contains the password.
    half = len(PASSWORD) // 2
    saying = await source_of(desk, origin, f"SELECT ('{PASSWORD[:half]}' || '{PASSWORD[half:]}')::int")
    fetched = [await desk.fetch(saying)]
    assert (fetched[0].error_category, "***" in (fetched[0].error or "")) == ("SOURCE", True), fetched[0].error
    for password, wanted in ((WRONG, "AUTH"), (None, "CONFIG"), (PASSWORD, None)):
        if password is None:
            monkeypatch.delenv("SPINE_SECRET_DESK_PASSWORD")
        else:
            monkeypatch.setenv("SPINE_SECRET_DESK_PASSWORD", password)
        fetched.append(await desk.fetch(name))
        assert fetched[-1].error_category == wanted, fetched[-1].error
    assert (fetched[-1].status, fetched[-1].rows_parsed) == ("SUCCESS", 3)

    shown = [one.model_dump_json() for one in fetched]
    shown += [(await desk.registry.read(one)).model_dump_json() for one in (name, saying)]
    async with desk.context.sessions() as session:
        for table in Base.metadata.sorted_tables:
            shown += [str(row) for row in await session.execute(select(table))]
    assert len(shown) > 12
    assert not [text for text in shown if PASSWORD in text or WRONG in text]


@pytest.mark.parametrize("origin", ["sqlite"], indirect=True)
async def test_a_query_accepts_no_parser_but_parquet(desk: Desk, origin: Origin) -> None:
    config = {"connection": await connect(desk, **origin.fields), "query": QUERY}
    with pytest.raises(BadRequest, match="parquet"):
        await desk.register("database", config, parser_type="csv")
    name = await desk.register("database", config, parser_type="parquet")
    with pytest.raises(BadRequest, match="parquet"):
        await desk.update(name, parser_type="json")
