"""Which channels get an alert, throttling, and validation of alerts."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.alerts.support import Alerts
from tests.support.receivers import Receiver, refuse


def channels_of(alerts: Alerts, alert_id: str) -> set[str]:
    """The names of the channels that get an alert."""
    return {delivery["channel_name"] for delivery in alerts.read(alert_id)["deliveries"]}


def test_channels_get_alerts_by_severity_and_domain(either_alerts: Alerts, desk: Receiver) -> None:
    either_alerts.channel(desk, name="all")
    either_alerts.channel(desk, name="errors", min_severity="ERROR")
    either_alerts.channel(desk, name="finra", domains=["finra.*", "sec"])
    either_alerts.channel(desk, name="off", enabled=False)
    assert channels_of(either_alerts, either_alerts.alert(severity="WARNING", domain="finra.otc")) == {"all", "finra"}
    assert channels_of(either_alerts, either_alerts.alert(severity="critical", domain="sec")) == {
        "all",
        "errors",
        "finra",
    }
    assert channels_of(either_alerts, either_alerts.alert(severity="ERROR", domain="security")) == {"all", "errors"}
    assert channels_of(either_alerts, either_alerts.alert(severity="INFO", domain="FINRA.otc")) == {"all"}
    assert channels_of(either_alerts, either_alerts.alert(severity="ERROR")) == {"all", "errors"}


def test_repeats_of_an_alert_are_throttled_and_counted(alerts: Alerts, desk: Receiver, other_desk: Receiver) -> None:
    quiet = alerts.channel(desk, throttle_minutes=5)
    alerts.channel(other_desk)
    first, *others = [alerts.alert(dedup_key="the same", title=f"number {number}") for number in range(4)]
    assert [one["status"] for one in alerts.settled(first)["deliveries"]] == ["SENT", "SENT"]
    for other in others:
        shown = alerts.settled(other)
        assert {one["channel_id"] == quiet["id"]: one["status"] for one in shown["deliveries"]} == {
            True: "THROTTLED",
            False: "SENT",
        }
    row = next(row for row in alerts.api.get("/alerts")["data"] if row["id"] == others[0])
    assert (row["delivery_count"], row["success_count"], row["failed_count"]) == (2, 1, 0)
    assert len(desk.posts) == 1
    assert alerts.settled(alerts.alert(dedup_key="another"))["deliveries"][0]["status"] == "SENT"
    # Without a throttle time, the next message is sent and has the number of throttled alerts.
    alerts.client.patch(f"/alerts/channels/{quiet['id']}", json={"throttle_minutes": 0})
    alerts.settled(alerts.alert(dedup_key="the same"))
    assert [request.json["held_back"] for request in desk.posts] == [0, 0, 3]
    assert [request.json["held_back"] for request in other_desk.posts] == [0] * 6


@pytest.mark.parametrize(
    "change", [{"source": "x"}, {"title": "x"}, {"severity": "CRITICAL"}, {"domain": "x"}, {"message": "another"}]
)
def test_without_a_key_only_a_repeat_of_all_is_the_same_alert(
    sqlite_alerts: Alerts, desk: Receiver, change: dict[str, Any]
) -> None:
    channel = sqlite_alerts.channel(desk, throttle_minutes=5)
    sqlite_alerts.alert(message="one")
    assert sqlite_alerts.delivery(sqlite_alerts.alert(message="one"))["status"] == "THROTTLED"
    assert sqlite_alerts.delivery(sqlite_alerts.alert(**{"message": "one", **change}))["status"] == "SENT"
    sqlite_alerts.client.delete(f"/alerts/channels/{channel['id']}")


def test_a_higher_severity_passes_the_throttle_and_begins_it_anew(either_alerts: Alerts, desk: Receiver) -> None:
    either_alerts.channel(desk, throttle_minutes=5)
    severities = ["WARNING", "INFO", "ERROR", "WARNING", "ERROR", "CRITICAL", "CRITICAL"]
    raised = [either_alerts.alert(severity=one, dedup_key="one problem") for one in severities]
    statuses = [either_alerts.delivery(alert_id)["status"] for alert_id in raised]
    assert statuses == ["SENT", "THROTTLED", "SENT", "THROTTLED", "THROTTLED", "SENT", "THROTTLED"]
    # A channel sends several at once, in any order.
    assert sorted(request.json["held_back"] for request in desk.posts) == [0, 1, 2]


def test_of_many_concurrent_repeats_one_is_sent(alerts: Alerts, desk: Receiver) -> None:
    alerts.channel(desk, throttle_minutes=5)
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: alerts.alert(), range(24)))
    statuses = [alerts.delivery(alert_id)["status"] for alert_id in ids]
    assert sorted(statuses) == ["SENT"] + ["THROTTLED"] * 23
    assert len(desk.posts) == 1


def test_an_alert_that_failed_does_not_throttle_the_next_one(either_alerts: Alerts, desk: Receiver) -> None:
    either_alerts.channel(desk, throttle_minutes=5)
    desk.behaviours.append(refuse(404))
    assert either_alerts.delivery(either_alerts.alert())["status"] == "FAILED"
    assert either_alerts.delivery(either_alerts.alert())["status"] == "SENT"


def test_requests_with_the_same_idempotency_key_raise_one_alert(alerts: Alerts, desk: Receiver) -> None:
    alerts.channel(desk)
    body = {"severity": "ERROR", "title": "once", "message": "m", "source": "s"}
    headers = {"Idempotency-Key": f"key-of-{desk.port}"}
    with ThreadPoolExecutor(6) as pool:
        answers = set(pool.map(lambda _: alerts.client.post("/alerts", json=body, headers=headers).text, range(6)))
    assert len(answers) == 1
    assert len(desk.wait_for(1)) == 1
    assert alerts.client.post("/alerts", json={**body, "title": "x"}, headers=headers).status_code == 409


@pytest.mark.parametrize(
    "change",
    [
        {"severity": "FATAL"},
        {"title": ""},
        {"title": "nul \x00"},
        {"source": "x" * 256},
        {"error_category": "LUCK"},
        {"metadata": [1]},
        {"surprise": 1},
    ],
)
def test_an_alert_that_does_not_fit_the_schema_is_422(sqlite_alerts: Alerts, change: dict[str, Any]) -> None:
    before = sqlite_alerts.api.get("/alerts")["pagination"]["total"]
    assert sqlite_alerts.post(**change).status_code == 422
    assert sqlite_alerts.api.get("/alerts")["pagination"]["total"] == before
