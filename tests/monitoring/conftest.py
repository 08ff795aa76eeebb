"""An API that has done a little of everything that is measured."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from spine.oddities import ODDITIES

from tests.monitoring.support import value_of
from tests.support.api_here import api_here
from tests.support.processes import wait_until
from tests.support.receivers import receiver
from tests.support.stack import Api, PrefectStack

# What a client chose: nothing of it may become a label.
CHOSEN = f"chosen-{uuid4().hex[:8]}"


@pytest.fixture(scope="package")
def busy(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API with requests of several kinds, calls to Prefect, and a delivery."""
    folder = tmp_path_factory.mktemp("busy")
    allowed = {"SPINE_ALLOW_PRIVATE_ADDRESSES": "true"}
    with receiver() as desk, api_here(stack.url, stack.home, folder, **allowed) as api:
        client = api.client
        body = {"name": CHOSEN, "channel_type": "webhook", "config": {"url": desk.url}, "min_severity": "INFO"}
        assert client.post("/alerts/channels", json=body).status_code == 201
        alert = {"severity": "ERROR", "title": CHOSEN, "message": CHOSEN, "source": CHOSEN, "domain": CHOSEN}
        assert client.post("/alerts", json=alert).status_code == 201
        assert client.post(f"/workflows/trigger/{CHOSEN}").status_code == 404
        for path in ("/sources", f"/sources/{CHOSEN}", f"/{CHOSEN}", "/workflows/runs"):
            client.get(path)
        client.request(CHOSEN.upper(), "/sources")
        desk.wait_for(1)
        attempts = "spine_alert_delivery_attempts_total"
        wait_until(lambda: value_of(api, attempts, channel_type="webhook", result="sent") > 0, "the attempt", 20)
        ODDITIES.found("source", CHOSEN, "the test says so")
        yield api
    ODDITIES.forget()
