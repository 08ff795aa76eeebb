"""Engines, sessions and transactions; the only module that knows how each database is opened."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, event, text
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError, TimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from spine.database_clock import CLOCK
from spine.database_problems import state_of
from spine.errors import DatabaseUnavailable
from spine.sqlite_locks import Turns, retrying
from spine.table_revisions import read_revision, require_tables
from spine.unreadable import SQLITE_TYPES, UnreadableObject, read_text

SECONDS_TO_CONNECT = 4
SECONDS_TO_WAIT_FOR_A_LOCK = 5
# A connection that was used this recently is not checked before its next use.
SECONDS_TRUSTED = 1.0

# Connections beyond `pool_size` would be closed after each use, and to open one costs more than a request. The one that
# was used last is used first, so that a quiet process opens few.
_POOL: dict[str, Any] = {"max_overflow": 0, "pool_timeout": SECONDS_TO_CONNECT, "pool_use_lifo": True}
# Each connection of SQLite is a thread, of which only one runs Python at a time.
_SQLITE_POOL, _POSTGRESQL_POOL = {**_POOL, "pool_size": 15}, {**_POOL, "pool_size": 30}

OUT_OF_REACH = "Spine's database is out of reach; try again in a few seconds."

SessionFactory = async_sessionmaker[AsyncSession]


def make_engine(url: URL) -> AsyncEngine:
    """An engine with a limit for every wait, so that requests return 503 within seconds if the database is down.

    Its connections refuse a database whose tables are older than this release needs, with `DatabaseUnavailable`.
    """
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(url, connect_args={"timeout": 0}, json_deserializer=_read_json, **_SQLITE_POOL)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        dialect = engine.sync_engine.dialect
        dialect.colspecs = {**dialect.colspecs, **SQLITE_TYPES}
    else:
        options = {"connect_timeout": SECONDS_TO_CONNECT, "options": "-c statement_timeout=8000"}
        engine = create_async_engine(url, connect_args=options, **_POSTGRESQL_POOL)
        event.listen(engine.sync_engine, "connect", _prepare_postgresql)
        _check_idle_connections(engine)
    event.listen(engine.sync_engine, "connect", partial(_refuse_older_tables, engine.dialect.name))
    return engine


def _check_idle_connections(engine: AsyncEngine) -> None:
    """Replace connections that the server has closed meanwhile; one that was just used needs no round trip for that."""
    pool, dialect = engine.sync_engine.pool, engine.dialect

    @event.listens_for(pool, "checkin")
    def note(_connection: Any, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(pool, "checkout")
    def check(connection: Any, record: Any, _proxy: Any) -> None:
        now = time.monotonic()
        # A new connection has not been used.
        is_trusted = now - record.info.get("used_at", now) < SECONDS_TRUSTED
        try:
            # A measurement finds a lost connection as a ping does.
            if CLOCK.is_due:
                CLOCK.measure(connection)
            elif not is_trusted:
                dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            if dialect.is_disconnect(error, connection, None):
                raise InvalidatePoolError from None
            raise


def require_database(url: URL) -> None:
    """Raise `DatabaseUnavailable` if `url` is that of a SQLite file that does not exist; a connection would make it."""
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        raise DatabaseUnavailable(
            f"There is no database at {url.database}; set SPINE_HOME or SPINE_DATABASE_URL, or run `spine up`."
        )


def _refuse_older_tables(dialect: str, connection: Any, _record: Any) -> None:
    # A connection that was refused is not kept, so the first one after `spine db upgrade` finds the new tables.
    cursor = connection.cursor()
    try:
        revision = read_revision(cursor, dialect)
    finally:
        cursor.close()
    connection.rollback()
    require_tables(revision)


def _read_json(stored: str) -> Any:
    """Stored JSON; SQLite keeps any text."""
    try:
        return json.loads(stored)
    except (ValueError, TypeError, RecursionError):
        return UnreadableObject()


def make_sessions(engine: AsyncEngine) -> SessionFactory:
    """A factory of sessions whose objects stay readable after the commit."""
    return async_sessionmaker(engine, expire_on_commit=False)


def _prepare_sqlite(connection: AsyncAdapt_aiosqlite_connection, _record: Any) -> None:
    driver: Any = connection.driver_connection
    # aiosqlite has no hook for this. The method is its only way into the connection's thread.
    driver._execute = retrying(driver._execute, SECONDS_TO_WAIT_FOR_A_LOCK)
    driver.text_factory = read_text
    # Write-ahead logging lets readers work while the one writer writes.
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    # Installations on SQLite do without the time that psycopg takes to import.
    from spine.postgresql_times import read_every_time

    read_every_time(connection.driver_connection)
    if CLOCK.is_due:
        CLOCK.measure(connection)


@contextmanager
def database_errors() -> Iterator[None]:
    """Translate the drivers' errors into `DatabaseUnavailable` if the database is out of reach or in no usable state.

    Errors of the statement itself, such as a violated constraint, are not translated.
    """
    try:
        yield
    except DBAPIError as error:
        if state := state_of(error):
            raise DatabaseUnavailable(state) from error
        if isinstance(error, OperationalError | InterfaceError):
            raise DatabaseUnavailable(OUT_OF_REACH) from error
        if error.connection_invalidated:
            raise DatabaseUnavailable("Spine's database dropped the connection; try again in a few seconds.") from error
        raise
    except (TimeoutError, OSError) as error:
        raise DatabaseUnavailable(OUT_OF_REACH) from error


@asynccontextmanager
async def transaction(sessions: SessionFactory) -> AsyncIterator[AsyncSession]:
    """A session whose transaction is committed at the end of the block, or rolled back if the block raises.

    On SQLite it takes the write lock when it begins: what it reads stays as it is until the block ends. Transactions
    of one process begin in turn. On PostgreSQL, `FOR UPDATE` locks what it reads. Raises `DatabaseUnavailable`.
    """
    with database_errors():
        if sessions.kw["bind"].dialect.name != "sqlite":
            async with sessions.begin() as session:
                yield session
            return
        async with _turn(str(sessions.kw["bind"].url)), sessions.begin() as session:
            await session.execute(text("BEGIN IMMEDIATE"))
            yield session


_turns: defaultdict[str, Turns] = defaultdict(Turns)


@asynccontextmanager
async def _turn(database: str) -> AsyncIterator[None]:
    lock = _turns[database].lock()
    async with asyncio.timeout(SECONDS_TO_WAIT_FOR_A_LOCK):
        await lock.acquire()
    try:
        yield
    finally:
        lock.release()


@asynccontextmanager
async def reading(sessions: SessionFactory) -> AsyncIterator[AsyncSession]:
    """A session for reading; nothing is committed. Raises `DatabaseUnavailable`.

    Each statement sees what was committed when it began, as in a transaction of PostgreSQL's default level, but
    without the round trips that begin and end a transaction. SQLite begins none for reading.
    """
    with database_errors():
        async with sessions() as session:
            if sessions.kw["bind"].dialect.name != "sqlite":
                await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            yield session
