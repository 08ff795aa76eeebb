"""What all tests share: one real Prefect server and worker for the session, and API processes on both databases."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_here import api_here
from tests.support.databases import LentDatabases
from tests.support.nursery import Nursery
from tests.support.order import Stopwatch, group_of, put_in_order
from tests.support.postgres import fresh_database
from tests.support.proxy import Proxy, proxy_to
from tests.support.servers import MAKERS
from tests.support.shared import Asker, Owner
from tests.support.stack import Api, PrefectStack

OWNER = pytest.StashKey[Owner]()
NURSERY = pytest.StashKey[Nursery]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that measures."""
    parser.addoption("--measure", action="store_true", help="write tests/durations.json, which orders the files")


def pytest_configure(config: pytest.Config) -> None:
    """Let the process in which the run began own what all processes share."""
    if not hasattr(config, "workerinput"):
        config.stash[OWNER] = Owner(MAKERS)
        config.stash[NURSERY] = Nursery()
        # Ends the run as Ctrl-C does, which stops what is shared.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if config.getoption("measure"):
            config.pluginmanager.register(Stopwatch())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process of xdist whole groups of tests."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return GroupScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest in front."""
    put_in_order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of xdist where the owner is."""
    node.workerinput["owner"] = node.config.stash[OWNER].listen()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what is shared."""
    if owner := config.stash.get(OWNER, None):
        owner.close()
    if nursery := config.stash.get(NURSERY, None):
        nursery.close()


@pytest.fixture(scope="session")
def shared(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Gives what all processes share, by its name."""
    folder = tmp_path_factory.getbasetemp()
    if owner := pytestconfig.stash.get(OWNER, None):
        return lambda name: owner.get(name, folder)
    asker = Asker(*pytestconfig.workerinput["owner"])  # type: ignore[attr-defined]
    # The folder of this process is in that of the run.
    return lambda name: asker.get(name, folder.parent)


@pytest.fixture(scope="session")
def stack(shared: Callable[[str], Any]) -> PrefectStack:
    """Prefect's server with a worker and every deployment."""
    found: PrefectStack = shared("stack")
    return found


@pytest.fixture(scope="session")
def quiet_stack(shared: Callable[[str], Any]) -> PrefectStack:
    """A Prefect server without worker and deployments, for tests that nothing else may happen to.

    Those of one xdist group use it one after the other.
    """
    found: PrefectStack = shared("quiet_stack")
    return found


@pytest.fixture(scope="session")
def quiet_api(shared: Callable[[str], Any]) -> Api:
    """The API over the quiet server, on SQLite; it does not follow runs."""
    found: Api = shared("quiet_api")
    return found


@pytest.fixture(scope="session")
def postgresql_url(shared: Callable[[str], Any]) -> Iterator[str]:
    """An empty PostgreSQL database for the tests of this process, on a server where more can be made."""
    with fresh_database(shared("postgresql")) as database:
        yield database


@pytest.fixture(scope="session")
def postgresql_databases(postgresql_url: str) -> Iterator[LentDatabases]:
    """Migrated databases for tests that do not need a new one each."""
    databases = LentDatabases(postgresql_url)
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def s3_url(shared: Callable[[str], Any]) -> str:
    """Where moto's S3 server is; it has the buckets `cache`, `desk` and `warehouse`."""
    return str(shared("s3"))


@pytest.fixture(scope="session")
def api(shared: Callable[[str], Any]) -> Api:
    """The API on SQLite, which most tests use."""
    found: Api = shared("api")
    return found


@pytest.fixture(scope="session")
def postgresql_api(shared: Callable[[str], Any]) -> Api:
    """The API on PostgreSQL; it leaves following Prefect to the one on SQLite."""
    found: Api = shared("postgresql_api")
    return found


@pytest.fixture(scope="session")
def second_postgresql_api(shared: Callable[[str], Any]) -> Api:
    """A second API process on the same PostgreSQL database."""
    found: Api = shared("second_postgresql_api")
    return found


@pytest.fixture(scope="session")
def worker_api(shared: Callable[[str], Any]) -> Api:
    """The API on the database and the cache of the worker; tests of one group use it."""
    found: Api = shared("worker_api")
    return found


@pytest.fixture(scope="session", params=["api", "postgresql_api"], ids=["sqlite", "postgresql"])
def each_api(request: pytest.FixtureRequest) -> Any:
    """The API on either database, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture(
    scope="session",
    params=[
        pytest.param("api", id="sqlite"),
        pytest.param("postgresql_api", id="postgresql", marks=pytest.mark.slow),
    ],
)
def either_api(request: pytest.FixtureRequest) -> Any:
    """The API, on PostgreSQL only in the slow half: for what neither locks nor depends on how SQL is understood."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def proxy(stack: PrefectStack) -> Iterator[Proxy]:
    """A proxy in front of Prefect's API."""
    with proxy_to(int(stack.url.split(":")[2].split("/")[0])) as started:
        yield started


@pytest.fixture(scope="session")
def proxied_api(stack: PrefectStack, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API that reaches Prefect only through the proxy, and only for requests."""
    with api_here(proxy.url, stack.home, tmp_path_factory.mktemp("proxied-api")) as started:
        yield started


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """A file to which demo flows add a line each time that a step really runs."""
    return tmp_path / "marks"
