"""Engines, sessions and transactions; the only module that knows how each database is opened."""

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
    """An engine with a limit for every wait, so that requests return 503 within seconds if the database is down."""
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
    """A factory of sessions whose objects stay readable after the commit."""
    return async_sessionmaker(engine, expire_on_commit=False)


def _prepare_sqlite(connection: SqliteConnection, _record: Any) -> None:
    # Write-ahead logging lets readers work while the one writer writes.
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


async def lock_out_writers(session: AsyncSession) -> None:
    """On SQLite, block all other writers until this transaction ends. Must be the first statement of the transaction.

    SQLite has no FOR UPDATE and starts its transaction with the first write, so rows that were read before could have
    changed by then. On PostgreSQL, FOR UPDATE locks those rows.
    """
    if session.get_bind().dialect.name == "sqlite":
        await session.execute(text("BEGIN IMMEDIATE"))


@contextmanager
def database_errors() -> Iterator[None]:
    """Translate the drivers' errors into `DatabaseUnavailable` if the database is out of reach.

    Errors of the statement itself, such as a violated constraint, are not translated.
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
    """A session whose transaction is committed at the end of the block, or rolled back if the block raises.

    Raises `DatabaseUnavailable`.
    """
    with database_errors():
        async with sessions.begin() as session:
            yield session


@asynccontextmanager
async def reading(sessions: SessionFactory) -> AsyncIterator[AsyncSession]:
    """A session for reading; nothing is committed. Raises `DatabaseUnavailable`."""
    with database_errors():
        async with sessions() as session:
            yield session
