"""Alerts that Spine raises by itself: failed, crashed and late runs, consecutive failures, and recovery."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.alerts.conftest import FAST_RETRIES
from tests.alerts.support import Alerts
from tests.run_history.support import Line
from tests.support.api_here import api_here
from tests.support.prefect_processes import prefect_environment, prefect_server
from tests.support.processes import free_port, wait_until
from tests.support.receivers import Receiver
from tests.support.stack import FOLLOWING, PrefectStack, api_process

WATCHING = {**FAST_RETRIES, **FOLLOWING, "SPINE_ALERT_LATE_SECONDS": "2"}
FAR_AWAY = {"schedule": {"cron": "0 3 1 1 *", "timezone": "UTC"}}


@pytest.fixture(scope="module")
def watching(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alerts]:
    """Alerts over an API that follows runs."""
    with api_here(stack.url, stack.home, Path(tmp_path_factory.mktemp("watching")), **WATCHING) as api:
        yield Alerts(api)


@pytest.fixture
def everything(watching: Alerts, desk: Receiver) -> Iterator[Receiver]:
    """A receiver that gets all alerts unthrottled."""
    watching.channel(desk)
    yield desk
    watching.delete_channels()


def make_line(stack: PrefectStack, **fields: Any) -> Line:
    flow_id = stack.flow_id(f"watched.{uuid4().hex[:10]}")
    deployment = stack.post("/deployments/", {"name": "watched", "flow_id": flow_id, **fields})
    return Line(stack, flow_id, UUID(deployment["id"]))


def received(desk: Receiver, line: Line) -> list[dict[str, Any]]:
    """The messages that arrived about a line's runs."""
    return [request.json for request in desk.posts if request.json["source"] == line.flow_name]


def wait_for_alerts(desk: Receiver, line: Line, count: int, seconds: float = 20) -> list[dict[str, Any]]:
    wait_until(lambda: len(received(desk, line)) >= count, f"{count} messages", seconds, every=0.05)
    return received(desk, line)


def fail(line: Line, message: str = "Flow run encountered an exception: ValueError: no rows") -> str:
    run_id = line.make("SCHEDULED")
    line.put(run_id, "RUNNING")
    line.put(run_id, "FAILED", message=message)
    return run_id


def test_a_failed_run_raises_an_alert_with_its_exception_and_a_link(
    stack: PrefectStack, watching: Alerts, everything: Receiver
) -> None:
    line = make_line(stack, tags=["domain:desk.rates", "severity:critical"])
    run_id = fail(line, "Flow run encountered an exception: OSError: postgresql://spine:s3cret@db is gone")
    (alert,) = wait_for_alerts(everything, line, 1)
    assert (alert["title"], alert["severity"], alert["domain"]) == (
        f"{line.flow_name} failed",
        "CRITICAL",
        "desk.rates",
    )
    assert (alert["run_id"], alert["error_category"]) == (run_id, "STORAGE")
    assert "OSError: postgresql://***@db is gone" in alert["message"]
    assert "attempt 1" in alert["message"]
    assert f"/runs/flow-run/{run_id}" in alert["message"]
    assert "s3cret" not in str(watching.read(alert["id"]))


def test_a_real_flow_raises_an_alert_with_its_failed_step_after_the_last_retry(
    stack: PrefectStack, everything: Receiver, marks: Path, watching: Alerts
) -> None:
    run_id = watching.api.trigger("demo.three_steps", marks=str(marks), unless=str(marks) + "-never")
    watching.api.wait_for(run_id, "FAILED")

    def of_run() -> list[dict[str, Any]]:
        return [request.json for request in everything.posts if request.json["run_id"] == run_id]

    wait_until(lambda: bool(of_run()), "the failure to be reported", 20)
    found = of_run()
    detail = watching.api.get(f"/workflows/runs/{run_id}")
    failed = [step["step_name"] for step in detail["steps"] if step["status"] == "FAILED"]
    assert len(found) == 1
    assert found[0]["metadata"]["failed_steps"] == failed
    assert f"Step {failed[0]} failed" in found[0]["message"]
    assert detail["error"] in found[0]["message"]


@pytest.mark.slow
def test_a_silenced_deployment_raises_no_alert(stack: PrefectStack, watching: Alerts, everything: Receiver) -> None:
    silent, loud = make_line(stack, tags=["alert:off"]), make_line(stack)
    fail(silent)
    fail(loud)
    wait_for_alerts(everything, loud, 1)
    time.sleep(1)
    assert received(everything, silent) == []


def test_a_crashed_run_raises_an_alert_but_not_a_cancelled_or_completed_one(
    stack: PrefectStack, watching: Alerts, everything: Receiver
) -> None:
    line = make_line(stack)
    line.run_through("RUNNING", "CANCELLED")
    line.run_through("RUNNING", "COMPLETED")
    line.run_through("RUNNING", "CRASHED")
    (alert,) = wait_for_alerts(everything, line, 1)
    assert alert["title"].endswith(" crashed")


def test_a_later_success_is_reported_to_the_channels_that_got_the_failure(
    stack: PrefectStack, watching: Alerts, desk: Receiver, other_desk: Receiver
) -> None:
    line = make_line(stack)
    watching.channel(desk, min_severity="ERROR")
    watching.channel(other_desk, min_severity="CRITICAL")
    fail(line)
    fail(line)
    wait_for_alerts(desk, line, 2)
    line.run_through("RUNNING", "COMPLETED")
    recovery = wait_for_alerts(desk, line, 3)[-1]
    assert (recovery["severity"], recovery["title"][:9]) == ("INFO", "RESOLVED:")
    line.run_through("RUNNING", "COMPLETED")
    time.sleep(1)
    assert len(received(desk, line)) == 3
    assert received(other_desk, line) == []
    fail(line)
    assert wait_for_alerts(desk, line, 4)[-1]["severity"] == "ERROR"
    watching.delete_channels()


@pytest.mark.slow
def test_a_schedule_that_fails_three_times_in_a_row_raises_one_more_alert(
    stack: PrefectStack, watching: Alerts, everything: Receiver
) -> None:
    line = make_line(stack, schedules=[FAR_AWAY])
    for _ in range(4):
        fail(line)
    alerts = wait_for_alerts(everything, line, 5)
    (streak,) = (one for one in alerts if "in a row" in one["title"])
    assert streak["severity"] == "CRITICAL"
    assert streak["title"] in [f"The schedule watched failed {times} times in a row" for times in (3, 4)]
    line.run_through("RUNNING", "COMPLETED")
    wait_for_alerts(everything, line, 6)
    for _ in range(3):
        fail(line)
    again = wait_for_alerts(everything, line, 10)
    assert sum("in a row" in one["title"] for one in again) == 2


def test_a_late_run_raises_one_alert(stack: PrefectStack, watching: Alerts, everything: Receiver) -> None:
    line, paused = make_line(stack, tags=["severity:warning"]), make_line(stack, tags=["alert:off"])
    due = {"state_details": {"scheduled_time": (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()}}
    for one in (line, paused):
        stack.post(f"/deployments/{one.id}/create_flow_run", {"state": {"type": "SCHEDULED", **due}})
    (alert,) = wait_for_alerts(everything, line, 1, seconds=30)
    assert (alert["severity"], alert["title"].endswith(" is late")) == ("WARNING", True)
    time.sleep(3)
    assert len(received(everything, line)) == 1
    assert received(everything, paused) == []


@pytest.mark.slow
def test_failures_while_spine_was_down_raise_alerts_after_its_restart(
    stack: PrefectStack, tmp_path: Path, desk: Receiver
) -> None:
    line = make_line(stack)
    with api_here(stack.url, stack.home, tmp_path / "api", **WATCHING) as api:
        Alerts(api).channel(desk)
        fail(line)
        (told,) = wait_for_alerts(desk, line, 1)
        Alerts(api).settled(told["id"])
    missed = [fail(line) for _ in range(5)]
    with api_here(stack.url, stack.home, tmp_path / "api", **WATCHING) as api:
        everything = wait_for_alerts(desk, line, 6, seconds=40)
        time.sleep(1)
        assert {one["run_id"] for one in everything[1:]} == set(missed)
        assert len(received(desk, line)) == 6


@pytest.mark.slow
def test_failures_while_spine_and_then_prefect_were_down_raise_alerts_after_their_restart(
    tmp_path: Path, desk: Receiver
) -> None:
    environment = prefect_environment(tmp_path / "prefect", free_port())
    stack = PrefectStack(environment["PREFECT_API_URL"], tmp_path / "prefect", environment)
    with prefect_server(environment, tmp_path / "server.log"):
        line = make_line(stack)
        with api_process(stack.url, stack.home, tmp_path / "api", **WATCHING) as api:
            Alerts(api).channel(desk)
            fail(line)
            wait_for_alerts(desk, line, 1)
        missed = [fail(line) for _ in range(30)]
    # Prefect is restarted as well, and later than Spine.
    with (
        api_process(stack.url, stack.home, tmp_path / "api", **WATCHING) as api,
        prefect_server(environment, tmp_path / "server.log"),
    ):
        alerts = wait_for_alerts(desk, line, 31, seconds=40)
        time.sleep(2)
        assert len(received(desk, line)) == 31
        assert {one["run_id"] for one in alerts[1:]} == set(missed)
        source = alerts[0]["source"]
        assert api.get("/alerts", source=source)["pagination"]["total"] == 31


@pytest.mark.slow
def test_two_processes_on_one_database_raise_each_alert_once(
    stack: PrefectStack, alerts_database: str, tmp_path: Path, desk: Receiver
) -> None:
    line = make_line(stack)
    both = (
        api_process(stack.url, stack.home, tmp_path / "one", alerts_database, **WATCHING),
        api_process(stack.url, stack.home, tmp_path / "two", alerts_database, **WATCHING),
    )
    with both[0] as one, both[1] as two:
        alerts = Alerts(one)
        alerts.channel(desk)
        for _ in range(10):
            fail(line)
        # One of the two leads; when it dies, the other takes over.
        for told in wait_for_alerts(desk, line, 10):
            # A process that is killed before it records that it sent an alert is no matter of this test.
            alerts.settled(told["id"])
        one.process.kill()
        for _ in range(5):
            fail(line)
        wait_for_alerts(desk, line, 15, seconds=45)
        time.sleep(2)
        assert len(received(desk, line)) == 15
        assert two.get("/alerts", source=received(desk, line)[0]["source"])["pagination"]["total"] == 15
        Alerts(two).delete_channels()
