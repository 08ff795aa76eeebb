"""People acknowledge, resolve and reopen alerts."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

from spine.run_history.outcomes import COMPLETED
from spine.tables.alerts import Alert, AlertAcknowledgement
from spine.tables.base import utc_now
from spine.tables.run_history import RunOutcome
from sqlalchemy import delete, insert, select, update

from tests.alerts.support import Alerts
from tests.api.test_auth import make_key
from tests.support.databases import in_database
from tests.support.receivers import Receiver


def test_a_higher_severity_ends_the_acknowledgement(either_alerts: Alerts, desk: Receiver) -> None:
    either_alerts.channel(desk)
    first = either_alerts.alert(severity="WARNING", dedup_key="rising")
    either_alerts.done(first, "acknowledge", assignee="Ada")
    raised = [either_alerts.alert(severity=one, dedup_key="rising") for one in ("INFO", "WARNING", "ERROR", "WARNING")]
    statuses = [either_alerts.delivery(alert_id)["status"] for alert_id in raised]
    assert statuses == ["THROTTLED", "THROTTLED", "SENT", "SENT"]
    shown = [either_alerts.read(alert_id) for alert_id in (first, *raised)]
    assert {one["state"] for one in shown} == {"FIRING"}
    assert {one["acknowledged_by"] for one in shown} == {None}
    assert [one["assignee"] for one in shown] == ["Ada", "Ada", "Ada", None, None]
    held_back = {post.json["id"]: post.json["held_back"] for post in desk.posts}
    assert held_back[raised[2]] == 2


def test_reopening_an_acknowledged_alert_lets_reminders_through(either_alerts: Alerts, desk: Receiver) -> None:
    either_alerts.channel(desk)
    first = either_alerts.alert(dedup_key="mistaken")
    either_alerts.done(first, "acknowledge")
    assert either_alerts.delivery(either_alerts.alert(dedup_key="mistaken"))["status"] == "THROTTLED"
    shown = either_alerts.done(first, "reopen")
    assert (shown["state"], shown["acknowledged_by"]) == ("FIRING", None)
    assert either_alerts.delivery(either_alerts.alert(dedup_key="mistaken"))["status"] == "SENT"
    assert len(desk.posts) == 2


def test_what_the_state_forbids_is_409_and_what_is_wrong_changes_nothing(either_alerts: Alerts, desk: Receiver) -> None:
    either_alerts.channel(desk)
    alert_id = either_alerts.alert(dedup_key="refused")
    either_alerts.settled(alert_id)
    past = either_alerts.act(alert_id, "acknowledge", until="2026-01-05T06:30:00Z")
    assert (past.status_code, "until" in past.json()["detail"]) == (400, True)
    wrong: list[dict[str, Any]] = [{"until": 99_999_999_999}, {"until": "tomorrow"}, {"note": ""}, {"surprise": 1}]
    for body in (*wrong, {"assignee": "x" * 256}, {"note": "nul \x00"}):
        assert either_alerts.act(alert_id, "acknowledge", **body).status_code == 422, body
    assert either_alerts.act(alert_id, "resolve", until="2999-01-01").status_code == 422
    assert either_alerts.read(alert_id)["state"] == "FIRING"
    assert either_alerts.client.post(f"/alerts/{alert_id}/resolve").status_code == 200
    refused = either_alerts.act(alert_id, "acknowledge")
    assert (refused.status_code, "is resolved" in refused.json()["detail"]) == (409, True)
    recovery = either_alerts.api.get("/alerts")["data"][0]["id"]
    assert either_alerts.act(recovery, "reopen").status_code == 409
    assert either_alerts.act(recovery, "acknowledge").status_code == 409
    for action in ("acknowledge", "resolve", "reopen"):
        for missing in ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "no-id", "nul%00"):
            assert either_alerts.act(missing, action).status_code == 404


def test_an_alert_about_a_run_is_not_reopened_once_a_later_run_has_succeeded(either_alerts: Alerts) -> None:
    alert_id, deployment_id, now = either_alerts.alert(), uuid4(), utc_now()
    either_alerts.change(update(Alert).where(Alert.id == alert_id).values(deployment_id=deployment_id, failed_at=now))
    either_alerts.done(alert_id, "resolve")
    either_alerts.done(alert_id, "reopen")
    either_alerts.done(alert_id, "resolve")
    later = now + timedelta(minutes=1)
    outcome = {"run_id": uuid4(), "state_id": uuid4(), "deployment_id": deployment_id, "outcome": COMPLETED}
    either_alerts.change(insert(RunOutcome).values(**outcome, scheduled_at=later, ended_at=later))
    refused = either_alerts.act(alert_id, "reopen")
    assert (refused.status_code, "has succeeded" in refused.json()["detail"]) == (409, True)
    assert either_alerts.read(alert_id)["state"] == "RESOLVED"


def test_lists_are_filtered_by_state(either_alerts: Alerts) -> None:
    source = uuid4().hex
    firing, acknowledged, over, resolved = (either_alerts.alert(source=source, dedup_key=uuid4().hex) for _ in range(4))
    for alert_id in (acknowledged, over):
        either_alerts.done(alert_id, "acknowledge", until="2999-01-01T00:00:00Z")
    either_alerts.change(update(Alert).where(Alert.id == over).values(snoozed_until=utc_now()))
    either_alerts.done(resolved, "resolve")

    def found(*states: str) -> list[str]:
        page = either_alerts.client.get("/alerts", params={"source": source, "state": list(states)}).json()
        assert page["pagination"]["total"] == len(page["data"])
        return [row["id"] for row in page["data"]]

    assert found("firing") == [over, firing]
    assert found("ACKNOWLEDGED") == [acknowledged]
    assert found("RESOLVED") == [resolved]
    assert found("FIRING", "RESOLVED") == [resolved, over, firing]
    assert found() == found("FIRING", "ACKNOWLEDGED", "RESOLVED") == [resolved, over, acknowledged, firing]
    assert either_alerts.client.get("/alerts", params={"state": "LOUD"}).status_code == 422


def test_a_key_acts_on_alerts_of_its_domains_and_on_no_others_of_the_same_key(either_alerts: Alerts) -> None:
    key = uuid4().hex
    seen, hidden = (either_alerts.alert(dedup_key=key, domain=domain) for domain in ("seen.desk", "hidden.desk"))
    client = either_alerts.api.as_key(make_key(either_alerts.api, f"desk-{key}", "write", domains=["seen.*"]))
    for action, state in (("acknowledge", "ACKNOWLEDGED"), ("resolve", "RESOLVED"), ("reopen", "FIRING")):
        assert client.post(f"/alerts/{seen}/{action}").json()["state"] == state
        assert client.post(f"/alerts/{hidden}/{action}").status_code == 404
        assert either_alerts.read(hidden)["state"] == "FIRING"


def test_an_acknowledgement_ends_with_the_newest_alert_of_its_problem(either_alerts: Alerts, desk: Receiver) -> None:
    either_alerts.channel(desk)
    first = either_alerts.alert(dedup_key="forgotten")
    either_alerts.done(first, "acknowledge")
    second = either_alerts.alert(dedup_key="forgotten")
    either_alerts.change(delete(Alert).where(Alert.id == first))
    url = either_alerts.api.settings.sqlalchemy_url
    with in_database(url) as connection:
        newest = select(AlertAcknowledgement.alert_id).where(AlertAcknowledgement.alert_id == second)
        assert connection.scalar(newest) == second
