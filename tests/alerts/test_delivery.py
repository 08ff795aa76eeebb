"""Deliveries from an alert to its receivers: attempts, retries and what is recorded."""

import json
from datetime import datetime

import pytest

from tests.alerts.support import Alerts
from tests.support.processes import wait_until
from tests.support.receivers import Behaviour, Receiver, drip, drop, echo, endless, hang, refuse
from tests.support.variants import one_by_default


@pytest.fixture
def alerts(either_alerts: Alerts) -> Alerts:
    return either_alerts


def test_an_alert_reaches_its_receiver_with_all_its_fields(alerts: Alerts, desk: Receiver) -> None:
    channel = alerts.channel(desk)
    alert_id = alerts.alert(domain="finra.otc", metadata={"rows": [1, 2]}, run_id="r-1", error_category="parse")
    delivery = alerts.delivery(alert_id)
    assert (delivery["status"], delivery["attempt"], delivery["error"]) == ("SENT", 1, None)
    assert (delivery["channel_id"], delivery["channel_name"]) == (channel["id"], channel["name"])
    assert delivery["delivered_at"] >= delivery["attempted_at"]
    (request,) = desk.posts
    sent = request.json
    assert (sent["id"], sent["severity"], sent["title"], sent["message"]) == (
        alert_id,
        "ERROR",
        "Rows are missing",
        "3 of 9",
    )
    assert (sent["metadata"], sent["run_id"], sent["error_category"]) == ({"rows": [1, 2]}, "r-1", "PARSE")
    assert request.headers["Idempotency-Key"] == delivery["id"]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    one_by_default(
        [
            (refuse(503, b"try later"), "HTTP 503 Service Unavailable: try later"),
            (refuse(429), "HTTP 429 Too Many Requests"),
            (refuse(500), "HTTP 500 Internal Server Error"),
            (drop, "it closed the connection"),
        ]
    ),
    ids=["503", "429", "500", "drop"],
)
def test_a_temporary_failure_is_retried_with_the_same_key(
    alerts: Alerts, desk: Receiver, behaviour: Behaviour, reason: str
) -> None:
    channel = alerts.channel(desk)
    desk.behaviours += [behaviour, behaviour]
    alert_id = alerts.alert()
    delivery = alerts.delivery(alert_id)
    assert (delivery["status"], delivery["attempt"], delivery["next_retry_at"]) == ("SENT", 3, None)
    assert {request.headers["Idempotency-Key"] for request in desk.posts} == {delivery["id"]}
    assert len({request.body for request in desk.posts}) == 1
    shown = alerts.api.get(f"/alerts/channels/{channel['id']}")
    assert shown["consecutive_failures"] == 0
    assert shown["last_failure_at"] < shown["last_success_at"]
    desk.always = behaviour
    failed = alerts.delivery(alerts.alert())
    assert (failed["status"], failed["attempt"], failed["error"]) == ("FAILED", 4, reason)
    shown = alerts.api.get(f"/alerts/channels/{channel['id']}")
    assert shown["consecutive_failures"] == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_permanent_failure_is_not_retried(alerts: Alerts, desk: Receiver, status: int) -> None:
    alerts.channel(desk)
    desk.always = refuse(status, b"no\x00body here")
    delivery = alerts.delivery(alerts.alert())
    assert (delivery["status"], delivery["attempt"], delivery["next_retry_at"]) == ("FAILED", 1, None)
    assert delivery["error"].startswith(f"HTTP {status} ")
    assert len(desk.posts) == 1


def test_a_redirect_is_not_followed(alerts: Alerts, desk: Receiver, other_desk: Receiver) -> None:
    alerts.channel(desk)
    desk.always = refuse(307, Location=other_desk.url)
    delivery = alerts.delivery(alerts.alert())
    assert (delivery["status"], delivery["attempt"]) == ("FAILED", 1)
    assert "redirects are not followed" in delivery["error"]
    assert other_desk.requests == []


def test_a_retry_waits_as_long_as_the_receiver_requests(alerts: Alerts, desk: Receiver) -> None:
    alerts.channel(desk)
    desk.behaviours.append(refuse(429, Retry_After="2"))
    alert_id = alerts.alert()
    desk.wait_for(1)
    delivery = alerts.delivery(alert_id)
    first, second = (request.headers for request in desk.posts)
    assert first["Idempotency-Key"] == second["Idempotency-Key"]
    waited = datetime.fromisoformat(delivery["attempted_at"]) - datetime.fromisoformat(
        alerts.read(alert_id)["created_at"]
    )
    assert waited.total_seconds() >= 2


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", one_by_default([hang, drip]), ids=["hang", "drip"])
def test_a_receiver_that_never_answers_times_out_and_delays_no_other_channel(
    sqlite_alerts: Alerts, desk: Receiver, other_desk: Receiver, behaviour: Behaviour
) -> None:
    sqlite_alerts.channel(desk, name="slow")
    sqlite_alerts.channel(other_desk, name="quick")
    desk.always = behaviour
    for number in range(12):
        last = sqlite_alerts.alert(title=f"alert {number}")
    assert len(other_desk.wait_for(12, seconds=8)) == 12

    def statuses() -> dict[str, str]:
        return {one["channel_name"]: one["status"] for one in sqlite_alerts.read(last)["deliveries"]}

    # A delivery is recorded as sent a moment after its receiver has got it.
    wait_until(lambda: statuses()["quick"] == "SENT", "the last quick delivery to be recorded", 2, every=0.05)
    assert statuses()["slow"] == "PENDING"
    result = sqlite_alerts.client.post("/alerts/channels/slow/test", timeout=20).json()
    assert (result["success"], result["response"]["reason"]) == (False, "no answer within 10 s")
    sqlite_alerts.delete_channels()
    assert {one["status"] for one in sqlite_alerts.read(last)["deliveries"]} == {"SENT", "FAILED"}


def test_an_endless_2xx_response_counts_as_sent(alerts: Alerts, desk: Receiver) -> None:
    alerts.channel(desk)
    desk.always = endless
    assert alerts.delivery(alerts.alert())["status"] == "SENT"


def test_secrets_that_a_receiver_repeats_are_masked(alerts: Alerts, desk: Receiver) -> None:
    config = {
        "url": f"{desk.url}?token=t0k3n-in-query",
        "headers": {"X-Auth": "h3ader-s3cret"},
        "secret": "hm4c-s3cret",
    }
    channel = alerts.channel(desk, config=config)
    desk.always = echo(403)
    delivery = alerts.delivery(alerts.alert())
    result = alerts.client.post(f"/alerts/channels/{channel['id']}/test").text
    for text in (json.dumps(delivery), result):
        assert "HTTP 403" in text
        for secret in ("s3cr3t-path-of-hook", "t0k3n-in-query", "h3ader-s3cret", "hm4c-s3cret"):
            assert secret not in text


def test_a_refused_connection_has_a_readable_error(alerts: Alerts, desk: Receiver) -> None:
    alerts.channel(config={"url": "http://127.0.0.1:9/nobody"})
    delivery = alerts.delivery(alerts.alert())
    assert (delivery["status"], delivery["attempt"], delivery["error"]) == ("FAILED", 4, "the connection was refused")
