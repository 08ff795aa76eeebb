"""`POST /runs/{run_id}/cancel`."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.support.prefect_processes import prefect_worker
from tests.support.processes import wait_until
from tests.support.stack import Api, PrefectStack


def cancel(api: Api, run_id: str) -> int:
    return api.client.post(f"/workflows/runs/{run_id}/cancel").status_code


def child_runs(stack: PrefectStack, run_id: str) -> list[dict[str, str]]:
    children: list[dict[str, str]] = stack.post(
        "/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run_id]}}}
    )
    return children


def test_a_pending_run_is_cancelled_at_once(api: Api, stack: PrefectStack) -> None:
    run_id = stack.make_run(stack.flow_id("demo.sleeper"), "SCHEDULED")
    response = api.client.post(f"/workflows/runs/{run_id}/cancel")
    assert response.status_code == 200
    assert response.json()["status"] == "cancelled"
    assert stack.get(f"/flow_runs/{run_id}")["state_type"] == "CANCELLED"


def test_a_running_run_stops_with_its_children_and_shows_which_step_was_interrupted(
    api: Api, stack: PrefectStack, marks: Path
) -> None:
    run_id = api.trigger("demo.sleeping_child", marks=str(marks))
    wait_until(marks.exists, "the flow to sleep", 60)
    pid = int(str(api.run(run_id)["execution_id"]))
    response = api.client.post(f"/workflows/runs/{run_id}/cancel")
    assert response.status_code == 200
    assert api.run(run_id)["status"] in ("RUNNING", "CANCELLED")
    detail = api.wait_for(run_id, "CANCELLED", seconds=60)
    assert not Path(f"/proc/{pid}").exists()
    (step,) = detail["steps"]
    assert (step["status"], step["error_category"]) == ("FAILED", "ORCHESTRATION")
    assert "Interrupted" in step["error"] or "ancel" in step["error"]
    (child,) = child_runs(stack, run_id)
    # Prefect's server looks for such children every 10 s.
    inside = api.wait_for(child["id"], "CANCELLED", seconds=60)
    assert [(one["step_name"], one["status"]) for one in inside["steps"]] == [("snooze", "FAILED")]


def test_a_finished_run_cannot_be_cancelled(api: Api, stack: PrefectStack) -> None:
    for state in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED"):
        run_id = stack.make_run(stack.flow_id("demo.sleeper"), state)
        response = api.client.post(f"/workflows/runs/{run_id}/cancel")
        assert response.status_code == 409
        assert "ended" in response.json()["detail"]
        assert stack.get(f"/flow_runs/{run_id}")["state_type"] == state


def test_a_run_can_be_cancelled_twice(api: Api, stack: PrefectStack) -> None:
    run_id = stack.make_run(stack.flow_id("demo.sleeper"), "RUNNING")
    assert [cancel(api, run_id), cancel(api, run_id)] == [200, 200]
    assert api.run(run_id)["status"] == "RUNNING"


@pytest.mark.slow
def test_a_run_whose_worker_is_gone_is_cancelled_within_the_deadline(
    api: Api, stack: PrefectStack, marks: Path, tmp_path: Path
) -> None:
    stack.post("/work_pools/", {"name": "doomed", "type": "process"})
    deployment = stack.deployment("demo.sleeper", "demo.sleeper")
    kept = {key: deployment[key] for key in ("flow_id", "entrypoint", "pull_steps", "path", "parameter_openapi_schema")}
    made = stack.post("/deployments/", {**kept, "name": "doomed", "work_pool_name": "doomed"})
    with prefect_worker(stack.environment, tmp_path / "worker.log", pool="doomed") as worker:
        body = {"parameters": {"marks": str(marks)}}
        run_id = str(stack.post(f"/deployments/{made['id']}/create_flow_run", body)["id"])
        wait_until(lambda: [step["status"] for step in api.run(run_id)["steps"]] == ["RUNNING"], "the step", 60)
        family = worker.children(recursive=True)
        worker.kill()
        for process in family:
            process.kill()
    assert cancel(api, run_id) == 200
    # The stack's Prefect server waits 8 s for a worker before it cancels by itself.
    detail = api.wait_for(run_id, "CANCELLED", seconds=60)
    assert [step["status"] for step in detail["steps"]] == ["FAILED"]


@pytest.mark.slow
def test_a_run_that_waits_in_its_process_for_a_retry_makes_no_further_attempt(
    api: Api, stack: PrefectStack, marks: Path
) -> None:
    run_id = api.trigger("demo.waits_to_retry", marks=str(marks))
    wait_until(lambda: stack.get(f"/flow_runs/{run_id}")["state_name"] == "AwaitingRetry", "the wait", 60)
    pid = int(str(api.run(run_id)["execution_id"]))
    assert cancel(api, run_id) == 200
    api.wait_for(run_id, "CANCELLED", seconds=60)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the process to end", 60)
    assert marks.read_text().split() == ["fail"]
    assert api.run(run_id)["status"] == "CANCELLED"


def test_a_suspended_run_is_cancelled(api: Api, stack: PrefectStack) -> None:
    run_id = stack.make_run(stack.flow_id("demo.sleeper"), "RUNNING")
    paused = {"type": "PAUSED", "name": "Suspended", "state_details": {"pause_reschedule": True}}
    stack.post(f"/flow_runs/{run_id}/set_state", {"state": paused, "force": True})
    assert cancel(api, run_id) == 200
    api.wait_for(run_id, "CANCELLED", seconds=60)


def test_an_unknown_run_cannot_be_cancelled(api: Api) -> None:
    assert cancel(api, "nonsense") == 404


@pytest.mark.slow
def test_a_run_can_be_cancelled_at_any_moment_of_its_start(api: Api, stack: PrefectStack, tmp_path: Path) -> None:
    api.wait_for(api.trigger("demo.typed", day="2025-12-15", tier="A"), "COMPLETED")

    def start_and_cancel(number: int) -> str:
        run_id = api.trigger("demo.sleeper", marks=str(tmp_path / str(number)))
        time.sleep(number * 0.04)
        # The client repeats what a busy Prefect made fail, and may then find the run cancelled.
        assert cancel(api, run_id) in (200, 409)
        return run_id

    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(start_and_cancel, range(20)))
    for run_id in runs:
        api.wait_for(run_id, "CANCELLED", "COMPLETED", seconds=60)
    time.sleep(2)
    found = [stack.get(f"/flow_runs/{run_id}") for run_id in runs]
    assert {run["state_type"] for run in found} == {"CANCELLED"}
    pids = [int(run["infrastructure_pid"]) for run in found if run["infrastructure_pid"]]
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "the processes to end", 60)
