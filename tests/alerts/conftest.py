"""Local receivers, and API processes that retry quickly and may send to this machine."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from spine.alerts.transport import Sender

from tests.alerts.leaks import find_leaks
from tests.alerts.support import Alerts
from tests.alerts.transport_support import resolve
from tests.support.postgres import fresh_database
from tests.support.receivers import Receiver, receiver
from tests.support.stack import PrefectStack, api_process
from tests.support.variants import one_by_default

FAST_RETRIES = {
    # Processes on one database need one key.
    "SPINE_SECRET_KEY": Fernet.generate_key().decode(),
    "SPINE_ALLOW_PRIVATE_ADDRESSES": "true",
    "SPINE_ALERT_RETRY_SECONDS": "0.1",
    "SPINE_ALERT_ATTEMPTS": "4",
}


@pytest.fixture
def desk() -> Iterator[Receiver]:
    """A local HTTP receiver of alerts."""
    with receiver() as made:
        yield made


@pytest.fixture
def other_desk() -> Iterator[Receiver]:
    """A second receiver."""
    with receiver() as made:
        yield made


@pytest.fixture(scope="package")
def sqlite_alerts(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alerts]:
    """Alerts over an API on SQLite."""
    with api_process(stack.url, stack.home, Path(tmp_path_factory.mktemp("alerts")), **FAST_RETRIES) as api:
        yield Alerts(api)
        assert find_leaks(api) == set()


@pytest.fixture(scope="package")
def alerts_database(postgresql_url: str) -> Iterator[str]:
    """A separate PostgreSQL database: API processes on a shared one would send each other's deliveries."""
    with fresh_database(postgresql_url) as database:
        yield database


@pytest.fixture(scope="package")
def postgresql_alerts(
    stack: PrefectStack, alerts_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Alerts]:
    """Alerts over an API on PostgreSQL."""
    folder = Path(tmp_path_factory.mktemp("pg-alerts"))
    with api_process(stack.url, stack.home, folder, alerts_database, **FAST_RETRIES) as api:
        yield Alerts(api)
        assert find_leaks(api) == set()


@pytest.fixture(params=["sqlite_alerts", "postgresql_alerts"], ids=["sqlite", "postgresql"])
def alerts(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Alerts over an API on each database, with only the channels that the test creates."""
    found: Alerts = request.getfixturevalue(request.param)
    yield found
    found.delete_channels()


@pytest.fixture(params=one_by_default(["sqlite_alerts", "postgresql_alerts"]), ids=["sqlite", "postgresql"])
def either_alerts(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The same, on PostgreSQL only in the slow half: for what neither locks nor depends on how SQL is understood."""
    found: Alerts = request.getfixturevalue(request.param)
    yield found
    found.delete_channels()


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    """Makes single attempts, with a short time limit."""
    made = Sender(True, resolve, seconds=2)
    yield made
    made.close()
