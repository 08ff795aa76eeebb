"""Incidents of PagerDuty are opened, acknowledged and resolved; a real HTTP server on loopback is in its place."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from apprise.plugins import pagerduty
from spine.tables.alerts import Alert
from spine.tables.base import utc_now
from sqlalchemy import update

from tests.alerts.conftest import FAST_RETRIES
from tests.alerts.support import Alerts
from tests.support.api_here import api_here
from tests.support.databases import LentDatabases
from tests.support.processes import free_port
from tests.support.receivers import Receiver, refuse
from tests.support.variants import one_by_default


@contextmanager
def here(folder: Path, database_url: str | None) -> Iterator[Alerts]:
    """Alerts over an API in this process, so that PagerDuty can be elsewhere; it needs no Prefect."""
    nowhere = f"http://127.0.0.1:{free_port()}/api"
    with api_here(nowhere, folder, folder / "home", database_url, **FAST_RETRIES) as api:
        yield Alerts(api)


@pytest.fixture(scope="module")
def sqlite_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alerts]:
    with here(tmp_path_factory.mktemp("incidents"), None) as made:
        yield made


@pytest.fixture(scope="module")
def postgresql_here(postgresql_databases: LentDatabases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alerts]:
    with postgresql_databases.lend() as url, here(tmp_path_factory.mktemp("pg-incidents"), url) as made:
        yield made


@pytest.fixture
def instead_of_pagerduty(desk: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """`desk` gets what PagerDuty would."""
    monkeypatch.setitem(pagerduty.PAGERDUTY_API_LOOKUP, pagerduty.PagerDutyRegion.US, desk.url)


@pytest.fixture(params=["sqlite_here", "postgresql_here"], ids=["sqlite", "postgresql"])
def alerts(request: pytest.FixtureRequest, instead_of_pagerduty: None) -> Iterator[Alerts]:
    """Alerts on each database, with a channel of PagerDuty."""
    yield from with_pagerduty(request.getfixturevalue(request.param))


@pytest.fixture(params=one_by_default(["sqlite_here", "postgresql_here"]), ids=["sqlite", "postgresql"])
def either_alerts(request: pytest.FixtureRequest, instead_of_pagerduty: None) -> Iterator[Alerts]:
    """The same, on PostgreSQL only in the slow half."""
    yield from with_pagerduty(request.getfixturevalue(request.param))


def with_pagerduty(alerts: Alerts) -> Iterator[Alerts]:
    alerts.channel(channel_type="pagerduty", config={"routing_key": "R" * 32})
    yield alerts
    alerts.delete_channels()


def events(desk: Receiver) -> list[tuple[str, str]]:
    """What PagerDuty got: actions and keys."""
    return [(post.json["event_action"], post.json["dedup_key"]) for post in desk.posts]


def test_an_incident_is_opened_acknowledged_and_resolved_with_one_key(
    alerts: Alerts, desk: Receiver, other_desk: Receiver
) -> None:
    alerts.channel(other_desk)
    key = f"run-failed:{uuid4()}"
    alert_id = alerts.alert(dedup_key=key)
    assert alerts.settled(alert_id)["state"] == "FIRING"
    until = (utc_now() + timedelta(hours=2)).replace(microsecond=0)
    wanted = {"note": "I look at it", "until": until.isoformat(), "assignee": "Ada"}
    for _ in range(2):
        shown = alerts.done(alert_id, "acknowledge", **wanted)
        assert (shown["state"], shown["acknowledged_by"]) == ("ACKNOWLEDGED", "admin")
        assert (shown["note"], shown["assignee"]) == ("I look at it", "Ada")
        assert (shown["snoozed_until"], shown["resolved_at"]) == (until.isoformat().replace("+00:00", "Z"), None)
    acknowledged = alerts.settled(alert_id)
    assert sorted((one["event"], one["status"]) for one in acknowledged["deliveries"]) == [
        ("ACKNOWLEDGE", "SENT"),
        ("ALERT", "SENT"),
        ("ALERT", "SENT"),
    ]
    again = alerts.settled(alerts.alert(dedup_key=key, title="again"))
    assert {one["status"] for one in again["deliveries"]} == {"THROTTLED"}
    assert (again["state"], again["assignee"]) == ("ACKNOWLEDGED", "Ada")
    for _ in range(2):
        shown = alerts.done(alert_id, "resolve", note="disk replaced")
        assert (shown["state"], shown["acknowledged_by"], shown["note"]) == ("RESOLVED", "admin", "disk replaced")
        assert shown["resolved_at"]
    assert alerts.read(again["id"])["state"] == "RESOLVED"
    desk.wait_for(3)
    other_desk.wait_for(2)
    newest = alerts.api.get("/alerts")["data"][0]
    assert (newest["title"], newest["severity"], newest["state"]) == ("RESOLVED: Rows are missing", "INFO", "RESOLVED")
    alerts.settled(newest["id"])
    assert events(desk) == [(action, key) for action in ("trigger", "acknowledge", "resolve")]
    assert [post.json["title"] for post in other_desk.posts] == ["Rows are missing", "RESOLVED: Rows are missing"]
    assert "admin resolved it with the note 'disk replaced'." in other_desk.posts[1].json["message"]
    # It is over, so the next one is another problem.
    assert alerts.settled(alerts.alert(dedup_key=key))["state"] == "FIRING"
    assert events(desk)[3:] == [("trigger", key)]


def test_an_event_waits_for_the_one_that_opens_the_incident(either_alerts: Alerts, desk: Receiver) -> None:
    desk.behaviours += [refuse(503), refuse(503)]
    alert_id = either_alerts.alert(dedup_key="slow")
    desk.wait_for(1)
    either_alerts.done(alert_id, "acknowledge")
    either_alerts.settled(alert_id)
    assert [action for action, _ in events(desk)] == ["trigger"] * 3 + ["acknowledge"]
    desk.behaviours += [refuse(503), refuse(503)]
    other_id = either_alerts.alert(dedup_key="slower")
    desk.wait_for(5)
    either_alerts.done(other_id, "resolve")
    assert [action for action, _ in events(desk)] == ["trigger"] * 3 + ["acknowledge", "trigger"]
    desk.wait_for(8)
    assert [action for action, _ in events(desk)][4:] == ["trigger"] * 3 + ["resolve"]


@pytest.mark.slow
def test_reminders_begin_again_when_the_time_has_come(either_alerts: Alerts, desk: Receiver) -> None:
    either_alerts.channel(desk)
    first = either_alerts.alert(dedup_key="snoozed")
    either_alerts.settled(first)
    either_alerts.done(first, "acknowledge", until=(utc_now() + timedelta(hours=1)).isoformat())
    either_alerts.settled(first)
    either_alerts.change(update(Alert).where(Alert.id == first).values(snoozed_until=utc_now()))
    assert either_alerts.read(first)["state"] == "FIRING"
    again = either_alerts.settled(either_alerts.alert(dedup_key="snoozed"))
    assert [one["status"] for one in again["deliveries"]] == ["SENT", "SENT"]
    assert again["acknowledged_by"] is None
    either_alerts.done(again["id"], "acknowledge")
    either_alerts.settled(again["id"])
    assert [post.json["event_action"] for post in desk.posts if "event_action" in post.json] == [
        "trigger",
        "acknowledge",
        "trigger",
        "acknowledge",
    ]


@pytest.mark.slow
def test_a_problem_that_is_reopened_is_sent_again_to_whoever_was_told_of_its_end(
    either_alerts: Alerts, desk: Receiver, other_desk: Receiver
) -> None:
    either_alerts.channel(other_desk, throttle_minutes=5)
    first, second = (either_alerts.alert(dedup_key="reopened") for _ in range(2))
    either_alerts.settled(second)
    either_alerts.done(first, "resolve")
    for _ in range(2):
        shown = either_alerts.done(first, "reopen")
        assert (shown["state"], shown["resolved_at"]) == ("FIRING", None)
    assert either_alerts.settled(second)["state"] == "FIRING"
    other_desk.wait_for(3)
    assert [action for action, _ in events(desk)] == ["trigger", "trigger", "resolve", "trigger"]
    assert [post.json["id"] for post in other_desk.posts][::2] == [first, second]
    # It can be resolved again, and then both are told again.
    either_alerts.done(second, "resolve")
    desk.wait_for(5)
    other_desk.wait_for(4)
    assert events(desk)[4:] == [("resolve", "reopened")]


def test_without_a_key_each_alert_has_an_incident_of_its_own(either_alerts: Alerts, desk: Receiver) -> None:
    title = uuid4().hex
    same = [either_alerts.alert(title=title) for _ in range(2)]
    other = either_alerts.alert(title=title, message="another")
    for alert_id in (*same, other):
        either_alerts.settled(alert_id)
    either_alerts.done(same[0], "acknowledge")
    desk.wait_for(5)
    assert sorted(events(desk)[3:]) == sorted(("acknowledge", alert_id) for alert_id in same)
    assert [either_alerts.read(alert_id)["state"] for alert_id in (*same, other)] == ["ACKNOWLEDGED"] * 2 + ["FIRING"]


def test_of_many_requests_at_once_one_event_is_sent_and_every_repeat_is_held(alerts: Alerts, desk: Receiver) -> None:
    alert_id = alerts.alert(dedup_key="busy")
    alerts.settled(alert_id)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(alerts.act, alert_id, "acknowledge") for _ in range(12)]
        assert {one.result().status_code for one in answers} == {200}
        raised = list(pool.map(lambda _: alerts.alert(dedup_key="busy"), range(24)))
    assert {alerts.delivery(one)["status"] for one in raised} == {"THROTTLED"}
    assert {alerts.read(one)["state"] for one in raised} == {"ACKNOWLEDGED"}
    alerts.settled(alert_id)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(alerts.act, one, "resolve") for one in raised[:8]]
        assert {one.result().status_code for one in answers} == {200}
    desk.wait_for(3)
    assert [action for action, _ in events(desk)] == ["trigger", "acknowledge", "resolve"]
