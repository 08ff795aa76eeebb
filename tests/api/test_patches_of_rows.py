"""A PATCH of a row of Spine's own changes the fields that were sent, and nothing where nothing is new."""

from typing import Any
from uuid import uuid4

import pytest

from tests.http.support import fields_of_body, operations
from tests.schedules.support import FAR_AWAY
from tests.support.stack import Api
from tests.support.web import WEB

SOURCE: dict[str, Any] = {
    "source_type": "http",
    "config": {"url": "https://files.example.com/a.csv", "headers": {"Authorization": "Bearer secret"}},
    "domain": "desk.a",
    "parser_type": "csv",
    "parser_config": {"delimiter": ";"},
    "cron_expression": FAR_AWAY,
}
MAIL = {"smtp_host": "mail.example.com", "smtp_port": 25, "from_address": "spine@example.com"}
CHANNEL: dict[str, Any] = {
    "channel_type": "email",
    "config": {**MAIL, "recipients": ["a@example.com"]},
    "domains": ["desk.*"],
    "min_severity": "WARNING",
    "throttle_minutes": 7,
}

# What a PATCH of each field sends, and the other fields that follow from it.
NEW: dict[str, dict[str, tuple[Any, set[str]]]] = {
    "/sources/{source_id}": {
        "name": ("NAME", set()),
        "config": ({"url": "https://files.example.com/b.csv"}, set()),
        "domain": ("desk.b", set()),
        "cron_expression": ("0 4 1 1 *", {"next_fetch_at"}),
        "parser_type": ("psv", set()),
        "parser_config": ({"delimiter": "|"}, set()),
        "enabled": (False, {"next_fetch_at"}),
    },
    "/alerts/channels/{channel_id}": {
        "name": ("NAME", set()),
        "config": ({**MAIL, "recipients": ["b@example.com"]}, set()),
        "min_severity": ("ERROR", set()),
        "domains": (["other.*"], set()),
        "enabled": (False, set()),
        "throttle_minutes": (9, set()),
    },
}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "/sources/{source_id}": ("/sources", SOURCE),
    "/alerts/channels/{channel_id}": ("/alerts/channels", CHANNEL),
}
# Its own file walks the fields of a schedule.
ELSEWHERE = "/schedules/{schedule_id}"


def make(api: Api, route: str) -> str:
    path, body = BODIES[route]
    made = api.client.post(path, json={"name": f"row-{uuid4().hex[:8]}", **body})
    assert made.status_code == 201, made.text
    return f"{path}/{made.json()['id']}"


def patch(api: Api, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = api.client.patch(path, json=body)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def test_each_field_that_can_be_changed_has_a_value_here(api: Api) -> None:
    document = WEB.get(f"{api.url}/openapi.json").json()
    fields = {
        path: fields_of_body(document, one).keys() for method, path, one in operations(document) if method == "PATCH"
    }
    del fields[ELSEWHERE]
    assert fields == {route: of_route.keys() for route, of_route in NEW.items()}


@pytest.mark.parametrize("route", NEW)
def test_a_field_changes_alone(api: Api, route: str) -> None:
    path = make(api, route)
    for field, (value, following) in NEW[route].items():
        before = api.get(path)
        sent = f"row-{uuid4().hex[:8]}" if value == "NAME" else value
        after = patch(api, path, {field: sent})
        # A configuration is shown with its defaults.
        shown = {name: after[field].get(name) for name in sent} if field == "config" else after[field]
        assert shown == sent
        assert before[field] != after[field]
        moving = {field, "updated_at", *following}
        assert {name: after[name] for name in after if name not in moving} == {
            name: before[name] for name in before if name not in moving
        }
        assert after["updated_at"] > before["updated_at"]
        assert api.get(path) == after
    api.client.delete(path)


@pytest.mark.parametrize("route", NEW)
def test_nothing_new_changes_nothing(api: Api, route: str) -> None:
    path = make(api, route)
    before = api.get(path)
    assert patch(api, path, {}) == before
    # The secrets in the configuration are masked, and stay.
    same = {field: before[field] for field in NEW[route]}
    after = patch(api, path, same)
    assert {**after, "updated_at": None} == {**before, "updated_at": None}
    api.client.delete(path)
