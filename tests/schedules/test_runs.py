"""`GET /schedules/{id}/runs`: which runs are listed, with which status, and in which order."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.schedules.support import Schedules, Workflow, now
from tests.support.processes import wait_until
from tests.support.stack import Api, PrefectStack
from tests.support.variants import one_by_default

STATUSES = {"PENDING", "RUNNING", "COMPLETED", "FAILED", "SKIPPED", "MISSED"}


def store(workflow: Workflow, schedule_id: str, due: datetime, **state: Any) -> str:
    """Create a run of the schedule that is due at `due`, and force it into a state."""
    scheduled = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
    body = {"flow_id": workflow.flow_id, "deployment_id": schedule_id, "state": scheduled}
    run_id = str(workflow.stack.post("/flow_runs/", body)["id"])
    if state:
        workflow.stack.post(f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})
    return run_id


@pytest.mark.parametrize(
    ("state", "status"),
    [
        *one_by_default(
            [
                ({}, "PENDING"),
                ({"type": "SCHEDULED", "name": "AwaitingConcurrencySlot"}, "PENDING"),
                ({"type": "PENDING"}, "PENDING"),
            ]
        ),
        ({"type": "SCHEDULED", "name": "Late"}, "MISSED"),
        *one_by_default(
            [
                ({"type": "RUNNING"}, "RUNNING"),
                ({"type": "PAUSED"}, "RUNNING"),
            ]
        ),
        ({"type": "COMPLETED"}, "COMPLETED"),
        *one_by_default(
            [
                ({"type": "FAILED", "message": "Flow run encountered an exception: ValueError: bad"}, "FAILED"),
                ({"type": "CRASHED", "message": "gone"}, "FAILED"),
            ]
        ),
        ({"type": "CANCELLED", "message": "Deployment concurrency limit reached."}, "SKIPPED"),
    ],
    ids=str,
)
def test_each_state_has_one_status_and_is_found_by_it(
    schedules: Schedules, workflow: Workflow, state: dict[str, Any], status: str
) -> None:
    schedule_id = schedules.make(name=(name := f"runs-{now().timestamp()}"))
    due = now() - timedelta(minutes=5)
    run_id = store(workflow, schedule_id, due, **state)
    (run,) = schedules.api.get(f"/schedules/{name}/runs")["data"]
    assert (run["id"], run["run_id"], run["status"]) == (run_id, run_id, status)
    assert (run["schedule_id"], run["schedule_name"]) == (schedule_id, name)
    assert abs((datetime.fromisoformat(run["scheduled_at"]) - due).total_seconds()) < 1
    assert (run["error"] is not None) == (status == "FAILED")
    assert run["skip_reason"] == (state["message"] if status == "SKIPPED" else None)
    assert (run["started_at"] is not None) == (state.get("type") in {"RUNNING", "COMPLETED", "FAILED", "CRASHED"})
    assert (run["completed_at"] is not None) == (status in {"COMPLETED", "FAILED", "SKIPPED"})
    for wanted in STATUSES:
        page = schedules.api.get(f"/schedules/{name}/runs", status=wanted.lower())
        assert (len(page["data"]), page["pagination"]["total"]) == ((1, 1) if wanted == status else (0, 0))


def test_a_run_that_was_cancelled_while_it_ran_shows_when_it_ran(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make()
    run_id = store(workflow, schedule_id, now() - timedelta(minutes=5), type="RUNNING")
    (running,) = schedules.api.get(f"/schedules/{schedule_id}/runs")["data"]
    assert running["completed_at"] is None
    assert 0 <= running["duration_seconds"] < 60
    workflow.stack.post(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
    (run,) = schedules.api.get(f"/schedules/{schedule_id}/runs")["data"]
    started, completed = (datetime.fromisoformat(run[name]) for name in ("started_at", "completed_at"))
    assert started == datetime.fromisoformat(running["started_at"])
    assert run["duration_seconds"] == pytest.approx((completed - started).total_seconds(), abs=0.002)
    assert (run["status"], run["skip_reason"], run["error"]) == ("SKIPPED", "It was cancelled.", None)


def test_the_error_of_a_run_is_the_message_of_its_exception(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make()
    message = "Flow run encountered an exception: ValueError: no rows"
    store(workflow, schedule_id, now() - timedelta(minutes=5), type="FAILED", message=message)
    (run,) = schedules.api.get(f"/schedules/{schedule_id}/runs")["data"]
    assert (run["error"], run["skip_reason"]) == ("ValueError: no rows", None)


def test_a_planned_run_is_not_listed_until_it_starts(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make()
    later = now() + timedelta(hours=3)
    for state in ({}, {"type": "PENDING"}, {"type": "CANCELLED"}):
        store(workflow, schedule_id, later, **state)
    assert schedules.api.get(f"/schedules/{schedule_id}/runs")["pagination"]["total"] == 0
    early = store(workflow, schedule_id, later, type="RUNNING")
    done = store(workflow, schedule_id, now() - timedelta(hours=1), type="COMPLETED")
    page = schedules.api.get(f"/schedules/{schedule_id}/runs")
    assert [run["id"] for run in page["data"]] == [early, done]
    assert page["pagination"]["total"] == 2


@pytest.mark.slow
def test_runs_are_ordered_by_due_time_and_pages_do_not_overlap(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make()
    base = now() - timedelta(hours=2)
    # Groups of three have the same due time; those due later were created, and so started, earlier.
    made = [
        store(workflow, schedule_id, base + timedelta(minutes=minute), type="COMPLETED")
        for minute in (3, 2, 1)
        for _ in range(3)
    ]
    whole = schedules.api.get(f"/schedules/{schedule_id}/runs", limit=100)["data"]
    due = [run["scheduled_at"] for run in whole]
    assert due == sorted(due, reverse=True)
    assert {run["id"] for run in whole} == set(made)
    pages: list[str] = []
    for offset in range(0, 9, 2):
        page = schedules.api.get(f"/schedules/{schedule_id}/runs", offset=offset, limit=2)
        assert page["pagination"]["total"] == 9
        pages += [run["id"] for run in page["data"]]
    assert pages == [run["id"] for run in whole]


def test_an_unknown_status_is_422(schedules: Schedules) -> None:
    schedule_id = schedules.make()
    assert schedules.api.client.get(f"/schedules/{schedule_id}/runs", params={"status": "LATE"}).status_code == 422


def test_a_run_that_the_overlap_policy_drops_is_skipped_with_the_reason(
    api: Api, stack: PrefectStack, marks: Any
) -> None:
    body = {
        "name": f"one-at-a-time-{now().timestamp()}",
        "target_type": "WORKFLOW",
        "target_name": "demo.sleeper",
        "target_params": {"marks": str(marks), "seconds": 30},
        "cron_expression": "0 3 1 1 *",
        "overlap_policy": "SKIP",
    }
    schedule_id = api.client.post("/schedules", json=body).json()["id"]
    first, second = (api.client.post(f"/schedules/{schedule_id}/run-now").json()["run_id"] for _ in range(2))

    def one_is_skipped() -> bool:
        return bool(api.get(f"/schedules/{schedule_id}/runs", status="SKIPPED")["data"])

    wait_until(one_is_skipped, "the overlap policy", 60, every=0.3)
    (skipped,) = api.get(f"/schedules/{schedule_id}/runs", status="SKIPPED")["data"]
    assert skipped["run_id"] in (first, second)
    assert "concurrency limit" in skipped["skip_reason"]
    assert (skipped["started_at"], skipped["error"]) == (None, None)
    (other,) = {first, second} - {skipped["run_id"]}
    api.client.post(f"/workflows/runs/{other}/cancel")
    shown = api.get(f"/schedules/{schedule_id}")
    assert (shown["success_count"], shown["failure_count"]) == (0, 0)
    stack.delete(f"/deployments/{schedule_id}")
