"""A migrated database of each kind, with a folder that sources may read."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from spine.cache.store import BlobStore
from spine.database import make_engine, make_sessions
from spine.settings import Settings
from spine.sources.fetching.context import FetchContext

from tests.sources.support import NO_PREFECT, Desk
from tests.support.databases import migrate
from tests.support.variants import one_by_default


@pytest.fixture(params=one_by_default(["sqlite", "postgresql"]))
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The URL of an empty database; None for the SQLite file in the home.

    PostgreSQL is for the slow half, except in modules with `ON_EACH_DATABASE`.
    """
    if request.param == "sqlite":
        yield None
    else:
        with request.getfixturevalue("postgresql_databases").lend() as url:
            yield url


@pytest.fixture
def settings(database: str | None, tmp_path: Path) -> Settings:
    """A home and a folder of files of its own."""
    (tmp_path / "files").mkdir()
    given: dict[str, Any] = {"database_url": database} if database else {}
    return Settings(home=tmp_path / "home", file_roots=(tmp_path / "files",), allow_private_addresses=True, **given)


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    """A desk on a migrated database."""
    settings.home.mkdir()
    migrate(settings.sqlalchemy_url)
    engine = make_engine(settings.sqlalchemy_url)
    context = FetchContext(settings, make_sessions(engine), NO_PREFECT, BlobStore.from_settings(settings))
    yield Desk(context, settings.file_roots[0])
    await engine.dispose()
