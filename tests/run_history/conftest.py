"""A database of each kind, and deployments that are deleted after the test."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from spine.settings import Settings
from sqlalchemy import URL

from tests.run_history.support import Line
from tests.support.databases import LentDatabases, migrate
from tests.support.stack import PrefectStack
from tests.support.variants import one_by_default


@pytest.fixture(scope="session")
def stack(quiet_stack: PrefectStack) -> PrefectStack:
    """A server on which no other runs end: what is read from its cursor must be what the test has put there."""
    return quiet_stack


@pytest.fixture(scope="package")
def sqlite_database(tmp_path_factory: pytest.TempPathFactory) -> URL:
    """A SQLite database with all tables."""
    url = Settings(home=Path(tmp_path_factory.mktemp("run-history"))).sqlalchemy_url
    migrate(url)
    return url


@pytest.fixture(scope="package")
def postgresql_database(postgresql_databases: LentDatabases) -> Iterator[URL]:
    """A PostgreSQL database with all tables."""
    with postgresql_databases.lend() as database:
        url = Settings(database_url=SecretStr(database)).sqlalchemy_url
        migrate(url)
        yield url


@pytest.fixture(scope="package", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> URL:
    """Each database in turn; tests start by deleting its rows."""
    found: URL = request.getfixturevalue(f"{request.param}_database")
    return found


@pytest.fixture(scope="package", params=one_by_default(["sqlite", "postgresql"]))
def either_database(request: pytest.FixtureRequest) -> URL:
    """The same, on PostgreSQL only in the slow half: for what neither locks nor depends on how SQL is understood."""
    found: URL = request.getfixturevalue(f"{request.param}_database")
    return found


@pytest.fixture
def line(stack: PrefectStack) -> Iterator[Line]:
    """A deployment of this test, deleted afterwards with its runs."""
    flow_id = stack.flow_id(f"followed.{uuid4().hex[:10]}")
    deployment = stack.post("/deployments/", {"name": "followed", "flow_id": flow_id})
    yield Line(stack, flow_id, UUID(deployment["id"]))
    stack.delete(f"/flows/{flow_id}")
