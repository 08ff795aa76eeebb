"""Alerts that nobody sends: failed, crashed and late runs, failures in a row, and the news that all is well."""

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
from tests.support.prefect_processes import prefect_environment, prefect_server
from tests.support.processes import free_port, wait_until
from tests.support.receivers import Receiver
from tests.support.stack import PrefectStack, api_process

FOLLOWING = {**FAST_RETRIES, "SPINE_FOLLOW_RUNS": "true", "SPINE_ALERT_LATE_SECONDS": "2"}
FAR_AWAY = {"schedule": {"cron": "0 3 1 1 *", "timezone": "UTC"}}


@pytest.fixture(scope="module")
def watching(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alerts]:
    """Alerts over an API that follows runs."""
    with api_process(stack.url, stack.home, Path(tmp_path_factory.mktemp("watching")), **FOLLOWING) as api:
        yield Alerts(api)


@pytest.fixture
def everything(watching: Alerts, desk: Receiver) -> Iterator[Receiver]:
    """Somebody who hears of everything at once."""
    watching.channel(desk)
    yield desk
    watching.delete_channels()


def make_line(stack: PrefectStack, **fields: Any) -> Line:
    flow_id = stack.flow_id(f"watched.{uuid4().hex[:10]}")
    deployment = stack.post("/deployments/", {"name": "watched", "flow_id": flow_id, **fields})
    return Line(stack, flow_id, UUID(deployment["id"]))


def heard(desk: Receiver, line: Line) -> list[dict[str, Any]]:
    """What came that is about a line's runs."""
    return [request.json for request in desk.posts if request.json["source"] == line.flow_name]


def wait_heard(desk: Receiver, line: Line, count: int, seconds: float = 20) -> list[dict[str, Any]]:
    wait_until(lambda: len(heard(desk, line)) >= count, f"{count} notices", seconds, every=0.05)
    return heard(desk, line)


def fail(line: Line, message: str = "Flow run encountered an exception: ValueError: no rows") -> str:
    run_id = line.make("SCHEDULED")
    line.put(run_id, "RUNNING")
    line.put(run_id, "FAILED", message=message)
    return run_id


def test_a_failed_run_is_told_with_its_exception_and_a_link(
    stack: PrefectStack, watching: Alerts, everything: Receiver
) -> None:
    line = make_line(stack, tags=["domain:desk.rates", "severity:critical"])
    run_id = fail(line, "Flow run encountered an exception: OSError: postgresql://spine:s3cret@db is gone")
    (told,) = wait_heard(everything, line, 1)
    assert (told["title"], told["severity"], told["domain"]) == (f"{line.flow_name} failed", "CRITICAL", "desk.rates")
    assert (told["run_id"], told["error_category"]) == (run_id, "STORAGE")
    assert "OSError: postgresql://***@db is gone" in told["message"]
    assert "attempt 1" in told["message"]
    assert f"/runs/flow-run/{run_id}" in told["message"]
    assert "s3cret" not in str(watching.read(told["id"]))


def test_a_real_flow_tells_its_step_only_after_the_last_retry(
    stack: PrefectStack, everything: Receiver, marks: Path, watching: Alerts
) -> None:
    run_id = watching.api.trigger("demo.three_steps", marks=str(marks), unless=str(marks) + "-never")
    watching.api.wait_for(run_id, "FAILED")

    def of_run() -> list[dict[str, Any]]:
        return [request.json for request in everything.posts if request.json["run_id"] == run_id]

    wait_until(lambda: bool(of_run()), "the failure to be told", 20)
    found = of_run()
    detail = watching.api.get(f"/workflows/runs/{run_id}")
    failed = [step["step_name"] for step in detail["steps"] if step["status"] == "FAILED"]
    assert len(found) == 1
    assert found[0]["metadata"]["failed_steps"] == failed
    assert f"Step {failed[0]} failed" in found[0]["message"]
    assert detail["error"] in found[0]["message"]


def test_a_silenced_deployment_is_not_told_of(stack: PrefectStack, watching: Alerts, everything: Receiver) -> None:
    silent, loud = make_line(stack, tags=["alert:off"]), make_line(stack)
    fail(silent)
    fail(loud)
    wait_heard(everything, loud, 1)
    time.sleep(1)
    assert heard(everything, silent) == []


def test_a_run_that_is_cancelled_or_completes_is_no_alert(
    stack: PrefectStack, watching: Alerts, everything: Receiver
) -> None:
    line = make_line(stack)
    line.run_through("RUNNING", "CANCELLED")
    line.run_through("RUNNING", "COMPLETED")
    line.run_through("RUNNING", "CRASHED")
    (told,) = wait_heard(everything, line, 1)
    assert told["title"].endswith(" crashed")


def test_a_later_success_is_told_to_those_who_heard_of_the_failure(
    stack: PrefectStack, watching: Alerts, desk: Receiver, other_desk: Receiver
) -> None:
    line = make_line(stack)
    watching.channel(desk, min_severity="ERROR")
    watching.channel(other_desk, min_severity="CRITICAL")
    fail(line)
    fail(line)
    wait_heard(desk, line, 2)
    line.run_through("RUNNING", "COMPLETED")
    told = wait_heard(desk, line, 3)[-1]
    assert (told["severity"], told["title"][:9]) == ("INFO", "RESOLVED:")
    line.run_through("RUNNING", "COMPLETED")
    time.sleep(1)
    assert len(heard(desk, line)) == 3
    assert heard(other_desk, line) == []
    fail(line)
    assert wait_heard(desk, line, 4)[-1]["severity"] == "ERROR"
    watching.delete_channels()


def test_a_schedule_that_fails_three_times_in_a_row_is_told_once(
    stack: PrefectStack, watching: Alerts, everything: Receiver
) -> None:
    line = make_line(stack, schedules=[FAR_AWAY])
    for _ in range(4):
        fail(line)
    told = wait_heard(everything, line, 5)
    (streak,) = (one for one in told if "in a row" in one["title"])
    assert streak["severity"] == "CRITICAL"
    assert streak["title"] in [f"The schedule watched failed {times} times in a row" for times in (3, 4)]
    line.run_through("RUNNING", "COMPLETED")
    wait_heard(everything, line, 6)
    for _ in range(3):
        fail(line)
    again = wait_heard(everything, line, 10)
    assert sum("in a row" in one["title"] for one in again) == 2


def test_a_late_run_is_told_once(stack: PrefectStack, watching: Alerts, everything: Receiver) -> None:
    line, paused = make_line(stack, tags=["severity:warning"]), make_line(stack, tags=["alert:off"])
    due = {"state_details": {"scheduled_time": (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()}}
    for one in (line, paused):
        stack.post(f"/deployments/{one.id}/create_flow_run", {"state": {"type": "SCHEDULED", **due}})
    (told,) = wait_heard(everything, line, 1, seconds=30)
    assert (told["severity"], told["title"].endswith(" is late")) == ("WARNING", True)
    time.sleep(3)
    assert len(heard(everything, line)) == 1
    assert heard(everything, paused) == []


def test_what_failed_while_spine_was_down_is_told_once_it_is_back(tmp_path: Path, desk: Receiver) -> None:
    environment = prefect_environment(tmp_path / "prefect", free_port())
    stack = PrefectStack(environment["PREFECT_API_URL"], tmp_path / "prefect", environment)
    with prefect_server(environment, tmp_path / "server.log"):
        line = make_line(stack)
        with api_process(stack.url, stack.home, tmp_path / "api", **FOLLOWING) as api:
            Alerts(api).channel(desk)
            fail(line)
            wait_heard(desk, line, 1)
        missed = [fail(line) for _ in range(30)]
    # Prefect is started anew, too, and later than Spine.
    with (
        api_process(stack.url, stack.home, tmp_path / "api", **FOLLOWING) as api,
        prefect_server(environment, tmp_path / "server.log"),
    ):
        told = wait_heard(desk, line, 31, seconds=40)
        time.sleep(2)
        assert len(heard(desk, line)) == 31
        assert {one["run_id"] for one in told[1:]} == set(missed)
        source = told[0]["source"]
        assert api.get("/alerts", source=source)["pagination"]["total"] == 31


def test_two_processes_on_one_database_raise_each_alert_once(
    stack: PrefectStack, alerts_database: str, tmp_path: Path, desk: Receiver
) -> None:
    line = make_line(stack)
    both = (
        api_process(stack.url, stack.home, tmp_path / "one", alerts_database, **FOLLOWING),
        api_process(stack.url, stack.home, tmp_path / "two", alerts_database, **FOLLOWING),
    )
    with both[0] as one, both[1] as two:
        alerts = Alerts(one)
        alerts.channel(desk)
        for _ in range(10):
            fail(line)
        # One of the two leads; when it dies, the other takes over.
        wait_heard(desk, line, 10)
        one.process.kill()
        for _ in range(5):
            fail(line)
        wait_heard(desk, line, 15, seconds=45)
        time.sleep(2)
        assert len(heard(desk, line)) == 15
        assert two.get("/alerts", source=heard(desk, line)[0]["source"])["pagination"]["total"] == 15
        Alerts(two).delete_channels()
