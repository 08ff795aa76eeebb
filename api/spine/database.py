"""Engines and sessions: the one place that knows how each database is opened."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from sqlite3 import Connection as SqliteConnection
from typing import Any

from sqlalchemy import URL, event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, TimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from spine.errors import DatabaseUnavailable

SECONDS_TO_CONNECT = 4
SECONDS_TO_WAIT_FOR_A_LOCK = 5

SessionFactory = async_sessionmaker[AsyncSession]


def make_engine(url: URL) -> AsyncEngine:
    """An engine whose waits are all bounded, so that a database that is down is a 503 within seconds."""
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(url, connect_args={"timeout": SECONDS_TO_WAIT_FOR_A_LOCK})
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        return engine
    return create_async_engine(
        url,
        connect_args={"connect_timeout": SECONDS_TO_CONNECT, "options": "-c statement_timeout=8000"},
        pool_pre_ping=True,
        pool_timeout=SECONDS_TO_CONNECT,
        pool_size=10,
        max_overflow=20,
    )


def make_sessions(engine: AsyncEngine) -> SessionFactory:
    """Sessions whose objects stay readable after the commit."""
    return async_sessionmaker(engine, expire_on_commit=False)


def _prepare_sqlite(connection: SqliteConnection, _record: Any) -> None:
    # Write-ahead logging lets readers and the one writer work side by side.
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


async def keep_writers_out(session: AsyncSession) -> None:
    """Let nobody else write until this transaction ends, on SQLite; the first statement of a transaction.

    SQLite has no FOR UPDATE and begins its transaction with the first write, so that what was read before could have
    changed by then. PostgreSQL locks the rows that are read to be changed.
    """
    if session.get_bind().dialect.name == "sqlite":
        await session.execute(text("BEGIN IMMEDIATE"))


@contextmanager
def database_errors() -> Iterator[None]:
    """Translate what the drivers raise when the database is out of reach.

    Errors of the statement itself (a broken constraint, say) pass through: they are for the caller, or a defect.
    """
    try:
        yield
    except (OperationalError, InterfaceError, TimeoutError, OSError) as error:
        raise DatabaseUnavailable("Spine's database is out of reach; try again in a few seconds.") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseUnavailable("Spine's database dropped the connection; try again in a few seconds.") from error
        raise


@asynccontextmanager
async def transaction(sessions: SessionFactory) -> AsyncIterator[AsyncSession]:
    """A session whose transaction is committed when the block ends, and rolled back when it raises.

    Raises `DatabaseUnavailable`.
    """
    with database_errors():
        async with sessions.begin() as session:
            yield session


@asynccontextmanager
async def reading(sessions: SessionFactory) -> AsyncIterator[AsyncSession]:
    """A session that only reads. Raises `DatabaseUnavailable`."""
    with database_errors():
        async with sessions() as session:
            yield session
