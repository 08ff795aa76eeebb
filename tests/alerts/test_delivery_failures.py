"""Delivery failures are reported in the health, in the metrics, and to the other channels."""

import pytest

from tests.alerts.support import Alerts
from tests.support.receivers import Receiver, refuse
from tests.support.web import WEB


@pytest.fixture
def alerts(either_alerts: Alerts) -> Alerts:
    return either_alerts


def test_an_abandoned_delivery_is_reported_once_to_the_other_channels(
    alerts: Alerts, desk: Receiver, other_desk: Receiver
) -> None:
    broken = alerts.channel(desk, name=f"broken-{desk.port}")
    alerts.channel(other_desk, min_severity="CRITICAL", domains=["elsewhere"])
    desk.always = refuse(410)
    for _ in range(3):
        alerts.settled(alerts.alert())
    (request,) = other_desk.wait_for(1)
    assert request.json["title"] == f"An alert could not be sent to {broken['name']}"
    assert "HTTP 410 Gone" in request.json["message"]
    assert request.json["source"] == "spine.alerts"
    assert len(desk.posts) == 3
    ready = WEB.get(f"{alerts.api.url}/health/ready").json()["alerts"]
    assert ready["state"] == "degraded"
    assert "abandoned within the last hour" in ready["detail"]
    assert len(other_desk.posts) == 1


@pytest.mark.slow
def test_a_channel_that_fails_ten_times_in_a_row_is_reported_to_the_others_and_in_the_health(
    alerts: Alerts, desk: Receiver, other_desk: Receiver
) -> None:
    failing = alerts.channel(desk, name=f"failing-{desk.port}")
    alerts.channel(other_desk, name=f"others-{desk.port}", domains=["elsewhere"])
    desk.always = refuse(500)
    for number in range(4):
        alerts.settled(alerts.alert(title=f"alert {number}"))
    titles = {request.json["title"] for request in other_desk.wait_for(2)}
    assert f"The alert channel {failing['name']} is failing" in titles
    ready = WEB.get(f"{alerts.api.url}/health/ready").json()["alerts"]
    assert ready["state"] == "degraded"
    assert failing["name"] in ready["detail"]
    metrics = WEB.get(f"{alerts.api.url}/metrics").text
    assert 'spine_alert_channels_failing{channel_type="webhook"}' in metrics
    assert "spine_alert_deliveries_given_up_last_hour" in metrics
    desk.always = lambda handler: handler.answer(204)
    alerts.settled(alerts.alert())
    assert failing["name"] not in WEB.get(f"{alerts.api.url}/health/ready").json()["alerts"]["detail"]
