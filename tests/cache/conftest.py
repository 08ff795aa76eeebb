"""Caches on both databases, in a local folder and on moto's S3 server."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from spine.cache.store import BlobStore
from spine.database import make_engine, make_sessions
from spine.settings import Settings
from sqlalchemy import make_url

from tests.cache.support import Cache
from tests.support.databases import migrate
from tests.support.variants import one_by_default

AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def local_store(tmp_path: Path) -> BlobStore:
    return BlobStore.from_settings(Settings(home=tmp_path / "home"))


@pytest.fixture
def s3_store(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    for name, value in {**AWS, "AWS_ENDPOINT_URL": s3_url}.items():
        monkeypatch.setenv(name, value)
    return BlobStore.from_settings(Settings(home=tmp_path / "home", cache_url=f"s3://cache/{uuid4().hex}"))


@pytest.fixture
def memory_store(tmp_path: Path) -> BlobStore:
    """A protocol whose incomplete uploads are visible."""
    return BlobStore.from_settings(Settings(home=tmp_path / "home", cache_url=f"memory://{uuid4().hex}"))


@pytest.fixture(params=["local_store", "s3_store", "memory_store"], ids=["local", "s3", "memory"])
def store(request: pytest.FixtureRequest) -> BlobStore:
    """A store of each kind."""
    found: BlobStore = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of either kind, with all tables."""
    with empty_database(request, tmp_path) as url:
        yield url


@pytest.fixture(params=one_by_default(["sqlite", "postgresql"]))
def either_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The same, on PostgreSQL only in the slow half: for what does not depend on the database."""
    with empty_database(request, tmp_path) as url:
        yield url


@contextmanager
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The database of the kind that is the parameter of a fixture."""
    if request.param == "sqlite":
        url = make_url(f"sqlite+aiosqlite:///{tmp_path / 'spine.db'}")
        migrate(url)
        yield url.render_as_string(hide_password=False)
        return
    with request.getfixturevalue("postgresql_databases").lend() as lent:
        yield make_url(lent).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


@pytest.fixture
async def cache(database_url: str, local_store: BlobStore) -> AsyncIterator[Cache]:
    """An empty cache in a local folder, on either database."""
    engine = make_engine(make_url(database_url))
    yield Cache(make_sessions(engine), local_store)
    await engine.dispose()


@pytest.fixture
async def s3_cache(cache: Cache, s3_store: BlobStore) -> Cache:
    """An empty cache on S3, on either database."""
    return Cache(cache.sessions, s3_store)
