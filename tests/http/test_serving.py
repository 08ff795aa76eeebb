"""What makes every request of a process quick."""

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from spine import database
from spine.database import SessionFactory, make_engine, make_sessions, reading
from spine.errors import DatabaseUnavailable
from spine.serve import Server, server_config
from spine.settings import Settings
from sqlalchemy import text
from starlette.responses import PlainTextResponse

from tests.support.api_here import app_here
from tests.support.databases import LentDatabases


def test_no_dependency_of_a_route_is_replaced(tmp_path: Path) -> None:
    assert app_here(Settings(home=tmp_path)).dependency_overrides == {}


async def test_a_server_that_has_started_collects_only_what_came_later(tmp_path: Path) -> None:
    server = Server(server_config(lambda: PlainTextResponse("here"), Settings(home=tmp_path)))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    try:
        await server.startup()
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
        await server.shutdown()


async def test_a_connection_that_the_server_closed_is_replaced(
    postgresql_url: str, migrated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.model_validate({"home": tmp_path, "database_url": migrated})
    engine = make_engine(settings.sqlalchemy_url)
    sessions = make_sessions(engine)
    try:
        # One that was just used is not checked: the request is to be sent again.
        await _close(postgresql_url, await _process_id(sessions))
        with pytest.raises(DatabaseUnavailable):
            await _process_id(sessions)
        monkeypatch.setattr(database, "SECONDS_TRUSTED", 0.0)
        known = await _process_id(sessions)
        await _close(postgresql_url, known)
        assert await _process_id(sessions) != known
    finally:
        await engine.dispose()


@pytest.fixture
def migrated(postgresql_databases: LentDatabases) -> Iterator[str]:
    """A database with all tables."""
    with postgresql_databases.lend() as url:
        yield url


async def _process_id(sessions: SessionFactory) -> int:
    async with reading(sessions) as session:
        return int((await session.execute(text("SELECT pg_backend_pid()"))).scalar_one())


async def _close(url: str, process_id: int) -> None:
    def terminate() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 2000)", [process_id])

    await asyncio.to_thread(terminate)
