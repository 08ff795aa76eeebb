"""`POST /runs/{run_id}/retry`: steps write marks, which show how often each one ran."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from spine.tables.base import utc_now
from spine.tables.retries import RetryClaim
from spine.workflows.retry import CLAIM_LEASE
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from tests.support.stack import Api, PrefectStack


def retry(api: Api, run_id: str, **query: str) -> tuple[int, dict[str, Any]]:
    response = api.client.post(f"/workflows/runs/{run_id}/retry", params=query)
    return response.status_code, response.json()


def executed(marks: Path) -> Counter[str]:
    return Counter(marks.read_text().split())


@dataclass(frozen=True)
class Started:
    """A run that fails in its last step until the file `unless` exists, and the marks that its steps write."""

    run_id: str
    marks: Path
    unless: Path


@pytest.fixture(scope="module")
def started(api: Api, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Started]:
    """One run for each test that needs one, started together because each start takes seconds."""
    workflows = {
        "goes on": "demo.three_steps",
        "from step": "demo.three_steps",
        "starts over": "demo.three_steps",
        "refused": "demo.three_steps",
        "child": "demo.parent_of_child",
    }
    runs = {}
    for name, workflow in workflows.items():
        folder = tmp_path_factory.mktemp("retry")
        marks, unless = folder / "marks", folder / "unless"
        runs[name] = Started(api.trigger(workflow, marks=str(marks), unless=str(unless)), marks, unless)
    return runs


def failed_run(api: Api, run: Started) -> tuple[str, Path, Path]:
    """The parts of a started run, after it has failed."""
    api.wait_for(run.run_id, "FAILED")
    return run.run_id, run.marks, run.unless


def test_a_retry_continues_the_same_run_and_runs_no_completed_step_again(api: Api, started: dict[str, Started]) -> None:
    run_id, marks, unless = failed_run(api, started["goes on"])
    unless.touch()
    status, body = retry(api, run_id)
    assert (status, body["run_id"], body["status"]) == (200, run_id, "PENDING")
    detail = api.wait_for(run_id, "COMPLETED")
    assert executed(marks) == {"extract": 1, "validate": 1, "publish": 2}
    assert (detail["attempt"], detail["trigger"], detail["triggered_by"]) == (2, "API", "admin")
    shown = [(step["step_name"], step["status"], step["retry_count"], step["outputs"]) for step in detail["steps"]]
    assert shown == [
        ("extract", "COMPLETED", 0, {"rows": 3}),
        ("validate", "COMPLETED", 0, {"valid": 3}),
        ("publish", "COMPLETED", 1, {"published": 3}),
    ]
    assert (detail["step_count"], detail["completed_step_count"], detail["failed_step_count"]) == (3, 3, 0)
    assert retry(api, run_id)[0] == 409


def test_from_step_runs_that_step_and_all_after_it_again_and_none_before(api: Api, started: dict[str, Started]) -> None:
    run_id, marks, unless = failed_run(api, started["from step"])
    unless.touch()
    assert retry(api, run_id, from_step="validate")[0] == 200
    detail = api.wait_for(run_id, "COMPLETED")
    assert executed(marks) == {"extract": 1, "validate": 2, "publish": 2}
    assert [step["retry_count"] for step in detail["steps"]] == [0, 1, 1]


@pytest.mark.slow
def test_from_step_can_start_over_and_can_be_repeated(api: Api, started: dict[str, Started]) -> None:
    run_id, marks, unless = failed_run(api, started["starts over"])
    assert retry(api, run_id, from_step="extract")[0] == 200
    api.wait_for(run_id, "RUNNING", "FAILED")
    assert api.wait_for(run_id, "FAILED")["attempt"] == 2
    assert executed(marks) == {"extract": 2, "validate": 2, "publish": 2}
    unless.touch()
    assert retry(api, run_id, from_step="publish")[0] == 200
    assert api.wait_for(run_id, "COMPLETED")["attempt"] == 3
    assert executed(marks) == {"extract": 2, "validate": 2, "publish": 3}


@pytest.mark.slow
def test_from_step_runs_a_completed_child_flow_again_or_keeps_it(api: Api, started: dict[str, Started]) -> None:
    run_id, marks, unless = failed_run(api, started["child"])
    assert retry(api, run_id, from_step="publish")[0] == 200
    api.wait_for(run_id, "RUNNING", "FAILED")
    assert api.wait_for(run_id, "FAILED")["attempt"] == 2
    assert executed(marks) == {"child": 1, "publish": 2}
    unless.touch()
    assert retry(api, run_id, from_step="demo.child")[0] == 200
    detail = api.wait_for(run_id, "COMPLETED")
    assert executed(marks) == {"child": 2, "publish": 3}
    assert [(step["step_name"], step["retry_count"]) for step in detail["steps"]] == [("demo.child", 1), ("publish", 2)]


@pytest.mark.slow
def test_from_step_can_be_repeated_and_keeps_a_result_that_an_earlier_step_shares(api: Api, tmp_path: Path) -> None:
    marks, unless = tmp_path / "marks", tmp_path / "unless"
    unless.touch()
    run_id = api.trigger("demo.same_call_twice", marks=str(marks), unless=str(unless))
    api.wait_for(run_id, "FAILED")
    unless.unlink()
    for attempt in (2, 3):
        assert retry(api, run_id, from_step="publish")[0] == 200
        api.wait_for(run_id, "PENDING", "RUNNING")
        assert api.wait_for(run_id, "FAILED")["attempt"] == attempt
    doubles = [step for step in api.run(run_id)["steps"] if step["step_name"] == "double"]
    # The first call was never executed again, and neither was the one that it serves.
    assert [step["retry_count"] for step in doubles[:2]] == [0, 0]
    assert executed(marks) == {"publish": 3}


@pytest.mark.slow
def test_from_step_is_409_if_an_earlier_result_is_not_persisted(api: Api, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    run_id = api.trigger("demo.unpersisted", marks=str(marks))
    api.wait_for(run_id, "FAILED")
    status, body = retry(api, run_id, from_step="fail")
    assert status == 409
    assert "'forget'" in body["detail"]
    assert "persist_result" in body["detail"]
    assert executed(marks) == {"fail": 1}


def test_from_step_is_rejected_for_unknown_steps_and_if_an_earlier_result_is_gone(
    api: Api, stack: PrefectStack, started: dict[str, Started]
) -> None:
    run_id, marks, _ = failed_run(api, started["refused"])
    status, body = retry(api, run_id, from_step="transform")
    assert status == 400
    assert "extract, validate, publish" in body["detail"]
    tasks = stack.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
    first = next(task for task in tasks if task["name"].startswith("extract"))
    Path(first["state"]["data"]["storage_key"]).unlink()
    status, body = retry(api, run_id, from_step="validate")
    assert status == 409
    assert "'extract'" in body["detail"]
    assert api.run(run_id)["status"] == "FAILED"
    assert executed(marks) == {"extract": 1, "validate": 1, "publish": 1}


@pytest.mark.parametrize("state", ["COMPLETED", "RUNNING", "PENDING", "SCHEDULED"])
def test_only_failed_and_cancelled_runs_can_be_retried(api: Api, stack: PrefectStack, state: str) -> None:
    run_id = stack.make_run(stack.flow_id("demo.typed"), state)
    status, body = retry(api, run_id)
    assert status == 409
    assert "failed or cancelled" in body["detail"]


def test_a_run_without_deployment_cannot_be_retried(api: Api, stack: PrefectStack) -> None:
    run_id = stack.make_run(stack.flow_id("demo.typed"), "FAILED")
    status, body = retry(api, run_id)
    assert status == 409
    assert "deployment" in body["detail"]


@pytest.mark.slow
def test_a_cancelled_run_can_be_retried(api: Api, stack: PrefectStack) -> None:
    run_id = run_of_tomorrow(stack)
    api.client.post(f"/workflows/runs/{run_id}/cancel")
    assert api.run(run_id)["status"] == "CANCELLED"
    assert retry(api, run_id)[0] == 200
    assert api.wait_for(run_id)["status"] == "COMPLETED"


def run_of_tomorrow(stack: PrefectStack) -> str:
    """A run of a deployment that no worker picks up today."""
    deployment = stack.deployment("demo.typed", "demo.typed")
    due = {"type": "SCHEDULED", "state_details": {"scheduled_time": (utc_now() + timedelta(days=1)).isoformat()}}
    body = {"state": due, "parameters": {"day": "2025-12-15", "tier": "A"}}
    return str(stack.post(f"/deployments/{deployment['id']}/create_flow_run", body)["id"])


def untaken_run(stack: PrefectStack) -> str:
    """A run of a deployment that failed before any worker picked it up."""
    run_id = run_of_tomorrow(stack)
    stack.post(f"/flow_runs/{run_id}/set_state", {"state": {"type": "FAILED"}, "force": True})
    return run_id


@pytest.mark.slow
def test_one_of_many_simultaneous_retries_over_two_processes_wins(
    postgresql_api: Api, second_postgresql_api: Api, stack: PrefectStack
) -> None:
    run_id = untaken_run(stack)
    apis = [postgresql_api, second_postgresql_api] * 4
    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(pool.map(lambda one: retry(one, run_id)[0], apis))
    assert statuses == {200: 1, 409: 7}
    detail = postgresql_api.wait_for(run_id, "COMPLETED")
    assert detail["attempt"] == 1


def test_one_of_many_simultaneous_retries_on_sqlite_wins(api: Api, stack: PrefectStack) -> None:
    run_id = untaken_run(stack)
    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(pool.map(lambda _: retry(api, run_id)[0], range(8)))
    assert statuses == {200: 1, 409: 7}


def test_a_claim_blocks_other_retries_until_it_expires(api: Api, stack: PrefectStack) -> None:
    run_id = untaken_run(stack)
    state_id = stack.get(f"/flow_runs/{run_id}")["state_id"]

    def claim(age: timedelta) -> None:
        engine = create_engine(api.settings.sqlalchemy_url.set(drivername="sqlite"))
        with Session(engine) as session, session.begin():
            session.merge(
                RetryClaim(
                    state_id=UUID(state_id), run_id=UUID(run_id), claimed_by="a process", claimed_at=utc_now() - age
                )
            )
        engine.dispose()

    claim(timedelta(seconds=1))
    assert retry(api, run_id)[0] == 409
    claim(CLAIM_LEASE + timedelta(seconds=1))
    assert retry(api, run_id)[0] == 200
