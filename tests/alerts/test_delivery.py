"""From an alert to its receivers: what is tried, how often, and what is remembered of it."""

import json
from datetime import datetime

import pytest

from tests.alerts.support import Alerts
from tests.support.receivers import Behaviour, Receiver, drip, drop, echo, endless, hang, refuse


def test_an_alert_reaches_its_receiver_with_all_that_it_says(alerts: Alerts, desk: Receiver) -> None:
    channel = alerts.channel(desk)
    alert_id = alerts.alert(domain="finra.otc", metadata={"rows": [1, 2]}, run_id="r-1", error_category="parse")
    delivery = alerts.delivery(alert_id)
    assert (delivery["status"], delivery["attempt"], delivery["error"]) == ("SENT", 1, None)
    assert (delivery["channel_id"], delivery["channel_name"]) == (channel["id"], channel["name"])
    assert delivery["delivered_at"] >= delivery["attempted_at"]
    (request,) = desk.posts
    told = request.json
    assert (told["id"], told["severity"], told["title"], told["message"]) == (
        alert_id,
        "ERROR",
        "Rows are missing",
        "3 of 9",
    )
    assert (told["metadata"], told["run_id"], told["error_category"]) == ({"rows": [1, 2]}, "r-1", "PARSE")
    assert request.headers["Idempotency-Key"] == delivery["id"]


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (refuse(503, b"come back later"), "HTTP 503 Service Unavailable: come back later"),
        (refuse(429), "HTTP 429 Too Many Requests"),
        (refuse(500), "HTTP 500 Internal Server Error"),
        (drop, "it closed the connection"),
    ],
    ids=["503", "429", "500", "drop"],
)
def test_what_may_go_well_later_is_tried_again_under_the_same_key(
    alerts: Alerts, desk: Receiver, behaviour: Behaviour, said: str
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
    assert (failed["status"], failed["attempt"], failed["error"]) == ("FAILED", 4, said)
    shown = alerts.api.get(f"/alerts/channels/{channel['id']}")
    assert shown["consecutive_failures"] == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_cannot_go_well_later_is_not_tried_again(alerts: Alerts, desk: Receiver, status: int) -> None:
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


def test_the_receiver_says_when_to_come_again(alerts: Alerts, desk: Receiver) -> None:
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


@pytest.mark.parametrize("behaviour", [hang, drip], ids=["hang", "drip"])
def test_a_receiver_that_never_answers_is_given_up_and_delays_nobody_else(
    sqlite_alerts: Alerts, desk: Receiver, other_desk: Receiver, behaviour: Behaviour
) -> None:
    sqlite_alerts.channel(desk, name="slow")
    sqlite_alerts.channel(other_desk, name="quick")
    desk.always = behaviour
    for number in range(12):
        last = sqlite_alerts.alert(title=f"alert {number}")
    assert len(other_desk.wait_for(12, seconds=8)) == 12
    pending = {one["channel_name"]: one for one in sqlite_alerts.read(last)["deliveries"]}
    assert (pending["quick"]["status"], pending["slow"]["status"]) == ("SENT", "PENDING")
    tried = sqlite_alerts.client.post("/alerts/channels/slow/test", timeout=20).json()
    assert (tried["success"], tried["response"]["reason"]) == (False, "no answer within 10 s")
    sqlite_alerts.delete_channels()
    assert {one["status"] for one in sqlite_alerts.read(last)["deliveries"]} == {"SENT", "FAILED"}


def test_a_receiver_that_never_stops_talking_has_taken_it(alerts: Alerts, desk: Receiver) -> None:
    alerts.channel(desk)
    desk.always = endless
    assert alerts.delivery(alerts.alert())["status"] == "SENT"


def test_nothing_that_a_receiver_repeats_is_a_secret_any_more(alerts: Alerts, desk: Receiver) -> None:
    config = {
        "url": f"{desk.url}?token=t0k3n-in-query",
        "headers": {"X-Auth": "h3ader-s3cret"},
        "secret": "hm4c-s3cret",
    }
    channel = alerts.channel(desk, config=config)
    desk.always = echo(403)
    delivery = alerts.delivery(alerts.alert())
    tried = alerts.client.post(f"/alerts/channels/{channel['id']}/test").text
    for text in (json.dumps(delivery), tried):
        assert "HTTP 403" in text
        for secret in ("s3cr3t-path-of-hook", "t0k3n-in-query", "h3ader-s3cret", "hm4c-s3cret"):
            assert secret not in text


def test_a_closed_port_is_told_in_words(alerts: Alerts, desk: Receiver) -> None:
    alerts.channel(config={"url": "http://127.0.0.1:9/nobody"})
    delivery = alerts.delivery(alerts.alert())
    assert (delivery["status"], delivery["attempt"], delivery["error"]) == ("FAILED", 4, "the connection was refused")
