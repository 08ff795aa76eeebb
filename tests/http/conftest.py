"""The API on each database, with nothing behind it: what is checked at the door needs no Prefect."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.api_here import api_here
from tests.support.databases import LentDatabases
from tests.support.processes import free_port
from tests.support.stack import Api
from tests.support.web import WEB

# What needs Prefect gets its 503 at once.
QUICKLY = {"SPINE_PREFECT_DEADLINE_SECONDS": "0.05"}


def serve(tmp_path_factory: pytest.TempPathFactory, database_url: str | None) -> Any:
    nowhere = f"http://127.0.0.1:{free_port()}/api"
    folder = tmp_path_factory.mktemp("door")
    return api_here(nowhere, folder / "prefect", folder / "spine", database_url, **QUICKLY)


@pytest.fixture(scope="package")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API on SQLite; Prefect is out of reach."""
    with serve(tmp_path_factory, None) as started:
        yield started


@pytest.fixture(scope="package")
def postgresql_door(postgresql_databases: LentDatabases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API on PostgreSQL; Prefect is out of reach."""
    with postgresql_databases.lend() as url, serve(tmp_path_factory, url) as started:
        yield started


@pytest.fixture(params=["door", "postgresql_door"], ids=["sqlite", "postgresql"])
def each_door(request: pytest.FixtureRequest) -> Any:
    """The API on either database, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="package")
def document(door: Api) -> dict[str, Any]:
    """The OpenAPI document."""
    found: dict[str, Any] = WEB.get(f"{door.url}/openapi.json").json()
    return found
