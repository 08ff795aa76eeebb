"""What all tests share: one real Prefect server and worker for the session, and API processes on both databases."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import fresh_database, postgresql_server
from tests.support.proxy import Proxy, proxy_to
from tests.support.stack import Api, PrefectStack, api_process, prefect_stack

# Files of a minute and more begin first, so that no process is left alone with one of them at the end.
LONGEST = [
    "tests/alerts/test_kills.py",
    "tests/api/test_retry.py",
    "tests/up/test_up_end_to_end.py",
    "tests/alerts/test_run_alerts.py",
    "tests/schedules/test_deploy_guard.py",
    "tests/api/test_outage.py",
    "tests/alerts/test_delivery.py",
    "tests/api/test_cancel.py",
    "tests/up/test_external_prefect.py",
    "tests/worker/test_behaviour.py",
    "tests/worker/test_forking.py",
    "tests/sources/test_end_to_end.py",
    "tests/schedules/test_end_to_end.py",
    "tests/api/test_finra_run.py",
    "tests/api/test_idempotency.py",
    "tests/api/test_deploy.py",
    "tests/schedules/test_code_sync.py",
    "tests/sources/test_kills.py",
    "tests/alerts/test_delivery_failures.py",
    "tests/test_house.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files in front; all else stays in its order."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectStack]:
    """Prefect's server with a worker and every deployment."""
    with prefect_stack(tmp_path_factory.mktemp("stack")) as started:
        yield started


@pytest.fixture(scope="session")
def postgresql_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty PostgreSQL database for the session's API."""
    with postgresql_server(tmp_path_factory.mktemp("postgresql")) as server, fresh_database(server) as database:
        yield database


@pytest.fixture(scope="session")
def api(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API on SQLite, which most tests use."""
    with api_process(stack.url, stack.home, tmp_path_factory.mktemp("api")) as started:
        yield started.patient()


@pytest.fixture(scope="session")
def postgresql_api(stack: PrefectStack, postgresql_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API on PostgreSQL; it leaves following Prefect to the one on SQLite."""
    folder = tmp_path_factory.mktemp("pg-api")
    with api_process(stack.url, stack.home, folder, postgresql_url, SPINE_FOLLOW_RUNS="false") as started:
        yield started.patient()


@pytest.fixture(scope="session")
def second_postgresql_api(
    stack: PrefectStack, postgresql_api: Api, postgresql_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """A second API process on the same PostgreSQL database."""
    folder = tmp_path_factory.mktemp("pg-api-2")
    with api_process(stack.url, stack.home, folder, postgresql_url, SPINE_FOLLOW_RUNS="false") as started:
        yield started.patient()


@pytest.fixture(scope="session", params=["api", "postgresql_api"], ids=["sqlite", "postgresql"])
def each_api(request: pytest.FixtureRequest) -> Any:
    """The API on either database, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def proxy(stack: PrefectStack) -> Iterator[Proxy]:
    """A proxy in front of Prefect's API."""
    with proxy_to(int(stack.url.split(":")[2].split("/")[0])) as started:
        yield started


@pytest.fixture(scope="session")
def proxied_api(stack: PrefectStack, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API that reaches Prefect only through the proxy, and only for requests."""
    with api_process(
        proxy.url, stack.home, tmp_path_factory.mktemp("proxied-api"), SPINE_FOLLOW_RUNS="false"
    ) as started:
        yield started


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """A file to which demo flows add a line each time that a step really runs."""
    return tmp_path / "marks"
