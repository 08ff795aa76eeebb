"""The topology that the tests of this folder share."""

from collections.abc import Iterator

import psutil
import pytest
from spine.settings import Settings

from tests.support.receivers import Receiver, receiver
from tests.support.stack import DEMO, Api
from tests.topology.running import Topology, topology


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    """All of it, with the deployments of the demo."""
    # The receivers of alerts in these tests are on this machine.
    with topology(tmp_path_factory.mktemp("topology"), SPINE_ALLOW_PRIVATE_ADDRESSES="true") as started:
        started.command("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(DEMO / "prefect.yaml"))
        yield started


@pytest.fixture(scope="session")
def balanced(whole: Topology) -> Api:
    """Spine's API behind the proxy, with a key that may do everything."""
    key = whole.command("spine", "keys", "create", "tests", "--scope", "admin").strip()
    found = Api(whole.api_url, psutil.Process(), Settings(), whole.folder / "proxy.log", is_patient=True)
    found.client = found.as_key(key)
    return found


@pytest.fixture(scope="session")
def desk(balanced: Api) -> Iterator[Receiver]:
    """A receiver of alerts."""
    with receiver() as made:
        channel = {"name": "desk", "channel_type": "webhook", "config": {"url": made.url}, "throttle_minutes": 0}
        assert balanced.client.post("/alerts/channels", json=channel).status_code == 201
        yield made
