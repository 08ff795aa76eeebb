"""A change of a source leaves in its Prefect schedule what people set there."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.api.prefect_objects import as_polled
from tests.schedules.support import FAR_AWAY
from tests.support.stack import Api, PrefectStack

WEB = {"source_type": "http", "config": {"url": "https://files.example.com/a.csv"}, "cron_expression": FAR_AWAY}


@pytest.fixture
def source(api: Api) -> Iterator[dict[str, Any]]:
    """A source with a schedule."""
    name = f"kept-{uuid4().hex[:8]}"
    made = api.client.post("/sources", json={"name": name, "domain": "desk.a", **WEB})
    assert made.status_code == 201, made.text
    yield api.get(f"/sources/{name}")
    api.client.delete(f"/sources/{made.json()['id']}")


def test_a_description_and_tags_of_people_stay(api: Api, stack: PrefectStack, source: dict[str, Any]) -> None:
    path = f"/deployments/{source['schedule_id']}"
    stack.patch(path, {"tags": [*stack.get(path)["tags"], "mine"]})
    for _ in range(2):
        # As a client does that had no answer.
        assert api.client.patch(f"/sources/{source['id']}", json={"domain": "desk.b"}).status_code == 200
        assert stack.get(path)["tags"] == [f"source:{source['name']}", "domain:desk.b", "mine"]
    stack.patch(path, {"description": "What people wrote."})
    renamed = {"name": f"{source['name']}-b", "cron_expression": "0 4 1 1 *"}
    assert api.client.patch(f"/sources/{source['id']}", json=renamed).json()["cron_expression"] == "0 4 1 1 *"
    found = stack.get(path)
    assert found["description"] == "What people wrote."
    assert found["tags"] == [f"source:{source['name']}-b", "domain:desk.b", "mine"]


def test_a_cron_for_several_timings_in_prefect_is_409_and_changes_nothing(
    api: Api, stack: PrefectStack, source: dict[str, Any]
) -> None:
    path = f"/deployments/{source['schedule_id']}"
    stack.post(f"{path}/schedules", [{"schedule": {"cron": "0 5 1 1 *"}, "active": True}])
    before, shown = stack.get(path), api.get(f"/sources/{source['id']}")
    changes = {"parser_type": "csv", "cron_expression": "0 4 1 1 *"}
    assert api.client.patch(f"/sources/{source['id']}", json=changes).status_code == 409
    after = stack.get(path)
    assert (after, api.get(f"/sources/{source['id']}")) == (as_polled(before, after), shown)
