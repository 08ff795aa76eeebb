"""Transactions on Spine's own SQLite: they take turns, wait on the event loop, and see what others have committed."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from spine import database
from spine.database import SessionFactory, make_engine, make_sessions, reading, transaction
from spine.errors import DatabaseUnavailable
from spine.settings import Settings
from sqlalchemy import text

from tests.support.databases import migrate

WRITERS, TURNS = 20, 5


@pytest.fixture
async def sessions(tmp_path: Path) -> AsyncIterator[SessionFactory]:
    """A database with one number."""
    url = Settings(home=tmp_path).sqlalchemy_url
    await asyncio.to_thread(migrate, url)
    engine = make_engine(url)
    made = make_sessions(engine)
    async with transaction(made) as session:
        await session.execute(text("CREATE TABLE counter (n INTEGER)"))
        await session.execute(text("INSERT INTO counter VALUES (0)"))
    yield made
    await engine.dispose()


async def add_one(sessions: SessionFactory, pause: float = 0.002) -> None:
    """Read the number, and then write it."""
    async with transaction(sessions) as session:
        found = (await session.execute(text("SELECT n FROM counter"))).scalar_one()
        await asyncio.sleep(pause)
        await session.execute(text("UPDATE counter SET n = :n"), {"n": found + 1})


async def number(sessions: SessionFactory) -> int:
    async with reading(sessions) as session:
        return int((await session.execute(text("SELECT n FROM counter"))).scalar_one())


async def test_no_transaction_that_reads_and_then_writes_is_lost_or_refused(sessions: SessionFactory) -> None:
    async def add() -> None:
        for _ in range(TURNS):
            await add_one(sessions)

    await asyncio.wait_for(asyncio.gather(*(add() for _ in range(WRITERS))), 60)
    assert await number(sessions) == WRITERS * TURNS


async def test_the_event_loop_and_readers_go_on_while_another_process_writes(
    sessions: SessionFactory, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "spine.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        adding = asyncio.gather(*(add_one(sessions) for _ in range(5)))
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert await number(sessions) == 0
        assert not adding.done()
        other.execute("COMMIT")
    await adding
    assert await number(sessions) == 5


async def test_a_wait_ends_with_503(sessions: SessionFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "SECONDS_TO_WAIT_FOR_A_LOCK", 0.2)
    async with transaction(sessions):
        with pytest.raises(DatabaseUnavailable):
            await asyncio.create_task(add_one(sessions))
    await add_one(sessions)
    monkeypatch.undo()
    began = time.monotonic()
    with sqlite3.connect(tmp_path / "spine.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable):
            await add_one(sessions)
        other.execute("ROLLBACK")
    assert time.monotonic() - began >= database.SECONDS_TO_WAIT_FOR_A_LOCK
    await add_one(sessions)


async def test_a_cancelled_transaction_leaves_its_turn_to_the_next(sessions: SessionFactory) -> None:
    first = asyncio.create_task(add_one(sessions, pause=0.2))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(add_one(sessions))
    await asyncio.sleep(0.05)
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    await add_one(sessions)
    assert await number(sessions) == 2
