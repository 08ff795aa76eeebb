"""Alert channels over the API: storage, responses and validation."""

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text

from tests.alerts.leaks import find_leaks
from tests.alerts.support import Alerts
from tests.support.receivers import Receiver
from tests.support.stack import Api

WEBHOOK = {
    "url": "https://example.com/hooks/t0psecret",
    "headers": {"Authorization": "Bearer t0psecret", "X-Team": "desk"},
    "secret": "t0psecret-hmac",
}
EMAIL = {
    "smtp_host": "mail.example.com",
    "smtp_port": 587,
    "smtp_user": "spine",
    "smtp_password_ref": "env:SPINE_SECRET_DESK_PASSWORD",
    "from_address": "spine@example.com",
    "recipients": ["a@example.com", "b@example.com"],
}
VALID: list[tuple[str, dict[str, Any]]] = [
    ("slack", {"webhook_url": "https://hooks.slack.com/services/T1/B2/t0psecret", "channel": "#ops"}),
    ("email", EMAIL),
    (
        "servicenow",
        {"instance": "dev1", "username": "u", "password_ref": "vault:secret/snow#pw", "assignment_group": "data"},
    ),
    ("webhook", WEBHOOK),
    ("pagerduty", {"routing_key": "t0psecret-routing-key"}),
    ("teams", {"webhook_url": "https://x.webhook.office.com/webhookb2/t0psecret"}),
    ("discord", {"webhook_url": "https://discord.com/api/webhooks/1/t0psecret"}),
    ("apprise", {"url": "ntfys://user:t0psecret@ntfy.example.com/topic"}),
]


@pytest.fixture
def alerts(either_alerts: Alerts) -> Alerts:
    return either_alerts


def stored_text(api: Api) -> str:
    """All rows of the table of channels, as text."""
    engine = create_engine(str(api.settings.sqlalchemy_url.render_as_string(False)).replace("+aiosqlite", ""))
    with engine.connect() as connection:
        found = [str(tuple(row)) for row in connection.execute(text("SELECT * FROM alert_channels"))]
    engine.dispose()
    return "\n".join(found)


@pytest.mark.parametrize(("channel_type", "config"), VALID, ids=[kind for kind, _ in VALID])
def test_the_config_of_every_type_is_stored_and_shown_without_its_secrets(
    alerts: Alerts, channel_type: str, config: dict[str, Any]
) -> None:
    shown = alerts.channel(channel_type=channel_type.upper(), config=config)
    assert shown["channel_type"] == channel_type
    assert shown["config"].keys() >= config.keys()
    assert "t0psecret" not in str(shown)
    assert "t0psecret" not in stored_text(alerts.api)
    for name, value in config.items():
        if "t0psecret" not in str(value):
            assert shown["config"][name] == value
    row = alerts.api.get("/alerts/channels", channel_type=channel_type)["data"][0]
    assert row == shown == alerts.api.get(f"/alerts/channels/{shown['name']}")


def test_find_leaks_finds_a_leak(alerts: Alerts) -> None:
    alerts.channel(
        name=f"shown-{(name := uuid4().hex)}",
        channel_type="email",
        config={**EMAIL, "from_address": f"{name}@example.com"},
    )
    # The log says which channel was changed.
    assert find_leaks(alerts.api, [name]) == {(name, "database"), (name, "answers"), (name, "log")}


INVALID: list[tuple[str, dict[str, Any], str]] = [
    ("slack", {}, "webhook_url"),
    ("slack", {"webhook_url": "ftp://s3cret.example.com/x"}, "webhook_url"),
    ("slack", {"webhook_url": "https://example.com/s3cret", "room": "x"}, "room"),
    ("email", {**EMAIL, "recipients": []}, "recipients"),
    ("email", {**EMAIL, "recipients": ["nobody"]}, "recipients"),
    ("email", {**EMAIL, "smtp_port": 70000}, "smtp_port"),
    ("email", {**EMAIL, "smtp_password_ref": "s3cret"}, "smtp_password_ref"),
    ("email", {**EMAIL, "smtp_password_ref": "env:SPINE_API_KEY"}, "smtp_password_ref"),
    (
        "servicenow",
        {"instance": "dev1/x", "username": "u", "password_ref": "env:X", "assignment_group": "d"},
        "instance",
    ),
    ("webhook", {"url": "https://example.com/s3cret", "headers": {"Bad Name": "s3cret"}}, "headers"),
    ("webhook", {"url": "https://example.com/s3cret", "headers": {"X-A": "s3cret\r\nX-B: 1"}}, "headers"),
    ("webhook", {"url": "https://example.com/s3cret", "headers": {"Idempotency-Key": "s3cret"}}, "headers"),
    ("webhook", {"url": "***"}, "url"),
    ("webhook", {"url": {"$sealed": "s3cret"}}, "url"),
    ("webhook", {"url": "http://169.254.169.254/s3cret"}, "169.254.169.254"),
    ("webhook", {"url": "http://[::ffff:169.254.169.254]/s3cret"}, "metadata address"),
    ("webhook", {"url": "http://0xa9fea9fe/s3cret"}, "169.254.169.254"),
    ("apprise", {"url": "nosuch://s3cret"}, "url"),
    ("apprise", {"url": "dbus://"}, "url"),
    ("pagerduty", {"routing_key": ""}, "routing_key"),
]


@pytest.mark.parametrize(("channel_type", "config", "named"), INVALID)
def test_an_invalid_config_is_400_with_the_field_and_without_secrets(
    sqlite_alerts: Alerts, channel_type: str, config: dict[str, Any], named: str
) -> None:
    body = {"name": f"wrong-{uuid4().hex[:6]}", "channel_type": channel_type, "config": config}
    response = sqlite_alerts.client.post("/alerts/channels", json=body)
    assert response.status_code == 400, response.text
    assert named in response.json()["detail"]
    assert all(error["loc"][:2] == ["body", "config"] for error in response.json()["errors"])
    assert "s3cret" not in response.text
    assert sqlite_alerts.client.get(f"/alerts/channels/{body['name']}").status_code == 404


@pytest.mark.parametrize(
    "change",
    [
        {"channel_type": "pigeon"},
        {"min_severity": "FATAL"},
        {"throttle_minutes": -1},
        {"domains": []},
        {"surprise": 1},
        {"name": ""},
        {"enabled": "yes"},
    ],
)
def test_a_channel_that_does_not_fit_the_schema_is_422(sqlite_alerts: Alerts, change: dict[str, Any]) -> None:
    body = {"name": f"bad-{uuid4().hex[:6]}", "channel_type": "webhook", "config": WEBHOOK, **change}
    response = sqlite_alerts.client.post("/alerts/channels", json=body)
    assert response.status_code == 422
    assert "t0psecret" not in response.text


def test_a_name_in_use_is_409(alerts: Alerts) -> None:
    taken = alerts.channel()
    other = alerts.channel()
    body = {"name": taken["name"], "channel_type": "webhook", "config": WEBHOOK}
    assert alerts.client.post("/alerts/channels", json=body).status_code == 409
    assert alerts.client.patch(f"/alerts/channels/{other['id']}", json={"name": taken["name"]}).status_code == 409
    assert alerts.api.get(f"/alerts/channels/{other['id']}") == other


def test_an_update_changes_only_the_given_fields_and_keeps_masked_secrets(alerts: Alerts, desk: Receiver) -> None:
    config = {"url": desk.url, "headers": {"X-Auth": "kept-s3cret", "X-Old": "1"}}
    channel = alerts.channel(desk, config=config, domains=["finra.*"])
    path = f"/alerts/channels/{channel['name']}"
    changed = alerts.client.patch(path, json={"min_severity": "critical", "domains": None}).json()
    assert (changed["min_severity"], changed["domains"], changed["config"]) == ("CRITICAL", None, channel["config"])
    sent = {"url": "***", "headers": {"X-Auth": "***", "X-New": "2"}}
    changed = alerts.client.patch(path, json={"config": sent}).json()
    assert changed["config"] == {"url": "***", "headers": {"X-Auth": "***", "X-New": "***"}}
    alerts.alert(severity="CRITICAL")
    (request,) = desk.wait_for(1)
    assert (request.headers["X-Auth"], request.headers["X-New"], "X-Old" in request.headers) == (
        "kept-s3cret",
        "2",
        False,
    )
    refused = alerts.client.patch(path, json={"config": {"url": "***", "headers": {"X-Other": "***"}}})
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["loc"] == ["body", "config", "headers", "X-Other"]
    for null in ("name", "config", "enabled", "throttle_minutes", "min_severity"):
        assert alerts.client.patch(path, json={null: None}).status_code == 422


def test_the_list_of_channels_has_filters_and_pages(sqlite_alerts: Alerts) -> None:
    sqlite_alerts.delete_channels()
    made = [sqlite_alerts.channel(enabled=number % 2 == 0)["id"] for number in range(5)]
    pages = [sqlite_alerts.api.get("/alerts/channels", limit=2, offset=offset)["data"] for offset in (0, 2, 4)]
    assert [row["id"] for page in pages for row in page] == made[::-1]
    disabled = sqlite_alerts.api.get("/alerts/channels", enabled="false")
    assert ([row["id"] for row in disabled["data"]], disabled["pagination"]["total"]) == ([made[3], made[1]], 2)
    assert sqlite_alerts.api.get("/alerts/channels", channel_type="slack")["data"] == []
    assert sqlite_alerts.client.get("/alerts/channels", params={"channel_type": "pigeon"}).status_code == 422
    assert sqlite_alerts.client.get("/alerts/channels/none%00such").status_code == 404
    sqlite_alerts.delete_channels()


def test_deliveries_outlive_a_deleted_channel(alerts: Alerts, desk: Receiver) -> None:
    channel = alerts.channel(desk)
    alert_id = alerts.alert()
    alerts.settled(alert_id)
    assert alerts.client.delete(f"/alerts/channels/{channel['id']}").json()["status"] == "deleted"
    assert alerts.client.get(f"/alerts/channels/{channel['id']}").status_code == 404
    (delivery,) = alerts.read(alert_id)["deliveries"]
    assert (delivery["channel_name"], delivery["status"]) == (channel["name"], "SENT")
    assert alerts.channel(desk, name=channel["name"])["id"] != channel["id"]


def test_a_test_message_is_sent_at_once_even_to_a_disabled_channel(alerts: Alerts, desk: Receiver) -> None:
    channel = alerts.channel(desk, enabled=False)
    answer = alerts.client.post(f"/alerts/channels/{channel['name']}/test")
    assert answer.status_code == 200
    result = answer.json()
    assert (result["success"], result["channel_id"], result["response"]["status"]) == (True, channel["id"], 200)
    assert desk.posts[0].json["title"] == f"Test of the channel {channel['name']}"
    assert alerts.api.get("/alerts", source="spine.test")["data"] == []


@pytest.mark.parametrize("channel_type", ["slack", "teams", "discord"])
def test_chat_services_at_other_hosts_get_the_payload_of_their_type(
    sqlite_alerts: Alerts, desk: Receiver, channel_type: str
) -> None:
    channel = sqlite_alerts.channel(channel_type=channel_type, config={"webhook_url": desk.url})
    delivery = sqlite_alerts.delivery(sqlite_alerts.alert())
    assert delivery["status"] == "SENT"
    sent = desk.posts[0].json
    key = {"slack": "text", "teams": "attachments", "discord": "embeds"}[channel_type]
    assert "[ERROR] Rows are missing" in str(sent[key])
    assert "desk.load" in str(sent[key])
    sqlite_alerts.client.delete(f"/alerts/channels/{channel['id']}")
