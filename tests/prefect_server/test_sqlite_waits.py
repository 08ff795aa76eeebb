"""Waits for SQLite's lock on the event loop, on Prefect's own database configuration."""

import ast
import asyncio
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.interface import PrefectDBInterface
from spine.prefect_server import sqlite_waits
from spine.prefect_server.sqlite_waits import install_sqlite_waits, missing_names
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from tests.support.source_code import python_files, tree_of

WRITERS, TURNS = 40, 10
# Another process that holds the write lock for a second.
HOLDER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(1)
connection.execute("COMMIT")
"""


@dataclass
class Counter:
    """A number in a database of Prefect's, which transactions read and then write."""

    configuration: AioSqliteConfiguration
    engine: AsyncEngine

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        session = await self.configuration.session(self.engine)
        async with session, self.configuration.begin_transaction(session):
            yield session

    async def add_one(self, pause: float = 0.002) -> None:
        async with self.transaction() as session:
            found = (await session.execute(text("SELECT n FROM counter"))).scalar_one()
            await asyncio.sleep(pause)
            await session.execute(text("UPDATE counter SET n = :n"), {"n": found + 1})

    async def read(self) -> int:
        session = await self.configuration.session(self.engine)
        async with session:
            return int((await session.execute(text("SELECT n FROM counter"))).scalar_one())


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit for waits that are installed later."""
    monkeypatch.setattr(sqlite_waits, "SECONDS_TO_WAIT", 0.2)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits, for one test."""
    monkeypatch.setattr(aiosqlite.Connection, "_execute", aiosqlite.Connection._execute)
    for name in ("setup_sqlite", "begin_transaction"):
        monkeypatch.setattr(AioSqliteConfiguration, name, getattr(AioSqliteConfiguration, name))
    monkeypatch.setattr(PrefectDBInterface, "create_db", PrefectDBInterface.create_db)
    assert install_sqlite_waits() == []


@pytest.fixture
async def counter(installed: None, tmp_path: Path) -> AsyncIterator[Counter]:
    configuration = AioSqliteConfiguration(f"sqlite+aiosqlite:///{tmp_path / 'prefect.db'}")
    made = Counter(configuration, await configuration.engine())
    async with made.transaction() as session:
        await session.execute(text("CREATE TABLE counter (n INTEGER)"))
        await session.execute(text("INSERT INTO counter VALUES (0)"))
    yield made
    await made.engine.dispose()


async def test_concurrent_transactions_that_read_and_then_write_are_all_stored(counter: Counter) -> None:
    async def add() -> None:
        for _ in range(TURNS):
            await counter.add_one()

    await asyncio.wait_for(asyncio.gather(*(add() for _ in range(WRITERS))), 60)
    assert await counter.read() == WRITERS * TURNS


async def test_the_event_loop_runs_on_while_another_process_holds_the_lock(counter: Counter, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "prefect.db")]
    holder = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    began, beats = time.monotonic(), 0
    writing = asyncio.gather(*(counter.add_one() for _ in range(5)))
    while not writing.done():
        await asyncio.sleep(0.01)
        beats += 1
    await writing
    assert await holder.wait() == 0
    assert time.monotonic() - began > 0.5
    assert beats > 10
    assert await counter.read() == 5


async def test_writes_outside_a_transaction_wait_too(counter: Counter) -> None:
    async def insert() -> None:
        session = await counter.configuration.session(counter.engine)
        async with session:
            await session.execute(text("INSERT INTO counter VALUES (0)"))
            await session.commit()

    async with counter.transaction() as session:
        await session.execute(text("DELETE FROM counter"))
        inserts = [asyncio.create_task(insert()) for _ in range(5)]
        await asyncio.sleep(0.1)
    # A task that began inside a transaction does not wait for its turn, only for the lock.
    await asyncio.wait_for(asyncio.gather(*inserts), 20)
    async with counter.transaction() as session:
        assert (await session.execute(text("SELECT count(*) FROM counter"))).scalar_one() == 5


async def test_a_transaction_inside_another_does_not_wait_for_its_own_turn(counter: Counter) -> None:
    async with asyncio.timeout(20), counter.transaction() as outer:
        await outer.execute(text("SELECT 1"))
        async with counter.transaction() as inner:
            assert (await inner.execute(text("SELECT n FROM counter"))).scalar_one() == 0


async def test_a_cancelled_transaction_leaves_its_turn_to_the_next(counter: Counter) -> None:
    first = asyncio.create_task(counter.add_one(pause=0.3))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(counter.add_one())
    await asyncio.sleep(0.05)
    second.cancel()
    with suppress(asyncio.CancelledError):
        await second
    await first
    await asyncio.wait_for(counter.add_one(), 20)
    assert await counter.read() == 2


async def test_a_wait_ends_at_its_limit(short_waits: None, counter: Counter, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "prefect.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="database is locked"):
            await counter.add_one()
        other.execute("ROLLBACK")
    other.close()
    await counter.add_one()


async def thread_of(connection: Any) -> int:
    """The thread on which a function of this connection runs."""
    return int(await connection._execute(threading.get_ident))


async def test_a_migration_runs_its_statements_on_the_thread_of_the_event_loop(installed: None, tmp_path: Path) -> None:
    seen = []

    class Migrating:
        """Prefect's own makes one object for each database."""

        create_db: Any = PrefectDBInterface.create_db

        async def run_migrations_upgrade(self) -> None:
            seen.append(await thread_of(connection))

    async with aiosqlite.connect(tmp_path / "prefect.db") as connection:
        await Migrating().create_db()
        seen.append(await thread_of(connection))
    assert seen[0] == threading.get_ident()
    assert seen[1] != threading.get_ident()


def test_this_prefect_has_every_name_that_is_replaced() -> None:
    assert list(missing_names()) == []


def test_every_name_that_the_start_of_the_server_replaces_or_that_is_private_is_checked() -> None:
    checked = {name.rpartition(".")[2] for name in sqlite_waits._REPLACED}
    used = set()
    for name in python_files("api"):
        for node in ast.walk(tree_of(name)) if name.startswith("api/spine/prefect_server/") else ():
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "sys", "os"):
                is_replaced = isinstance(node.ctx, ast.Store)
                is_private = node.attr.startswith("_") and not node.attr.startswith("__")
                used |= {node.attr} if is_replaced or is_private else set()
    # Without the first there are no doors, and the server does not start; the other is looked for where it is replaced.
    assert used - {"create_app", "check_schema"} == checked


def test_where_a_function_has_other_parameters_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AioSqliteConfiguration, "begin_transaction", lambda self: None)
    before = aiosqlite.Connection._execute
    assert install_sqlite_waits() == ["AioSqliteConfiguration.begin_transaction"]
    assert aiosqlite.Connection._execute is before
