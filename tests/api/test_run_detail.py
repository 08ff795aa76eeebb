"""`GET /runs/{run_id}`: steps, outputs, errors and origins of runs that were really executed."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import wait_until
from tests.support.stack import Api, PrefectStack


def steps_by_name(detail: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    named: dict[str, list[dict[str, Any]]] = {}
    for step in detail["steps"]:
        named.setdefault(step["step_name"], []).append(step)
    return named


def recorded(api: Api, run_id: str, count: int) -> dict[str, Any]:
    """The detail of a run that has ended, after Prefect has recorded the ends of its steps, which takes longer."""
    api.wait_for(run_id)

    def are_recorded() -> bool:
        detail = api.run(run_id)
        return bool(detail["completed_step_count"] + detail["failed_step_count"] == count)

    wait_until(are_recorded, f"{count} steps to be recorded", 30)
    return api.run(run_id)


@pytest.fixture(scope="module")
def runs(api: Api, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Runs of several flows, started at once."""
    folder = tmp_path_factory.mktemp("runs")
    counts = {"three": 3, "many": 9, "flaky": 1, "unpersisted": 2}
    marks = {name: str(folder / name) for name in counts}
    started = {
        "three": api.trigger("demo.three_steps", marks=marks["three"], unless=str(folder / "never")),
        "many": api.trigger("demo.many_steps", marks=marks["many"]),
        "flaky": api.trigger("demo.fails_once_inside", marks=marks["flaky"]),
        "unpersisted": api.trigger("demo.unpersisted", marks=marks["unpersisted"]),
    }
    for name, run_id in started.items():
        recorded(api, run_id, counts[name])
    return started


def test_a_failed_run_shows_the_message_of_the_exception(api: Api, runs: dict[str, str]) -> None:
    detail = api.wait_for(runs["three"])
    assert (detail["status"], detail["error"]) == ("FAILED", "RuntimeError: could not publish")
    steps = detail["steps"]
    assert [(step["step_name"], step["step_index"], step["status"]) for step in steps] == [
        ("extract", 0, "COMPLETED"),
        ("validate", 1, "COMPLETED"),
        ("publish", 2, "FAILED"),
    ]
    assert steps[2]["error"] == "RuntimeError: could not publish"
    assert (detail["step_count"], detail["completed_step_count"], detail["failed_step_count"]) == (3, 2, 1)


def test_the_category_of_a_vague_exception_is_that_of_its_cause(api: Api, runs: dict[str, str]) -> None:
    detail = api.wait_for(runs["three"])
    assert detail["error_category"] == "NETWORK"
    assert detail["steps"][2]["error_category"] == "NETWORK"
    assert detail["steps"][0]["error_category"] is None


def test_outputs_are_the_persisted_json_and_inputs_show_the_steps_they_came_from(
    api: Api, runs: dict[str, str]
) -> None:
    extract, validate, publish = api.wait_for(runs["three"])["steps"]
    assert extract["outputs"] == {"rows": 3}
    assert validate["outputs"] == {"valid": 3}
    assert validate["inputs"] == {
        "extracted": {"from_steps": [{"step_name": "extract", "step_id": extract["step_id"]}]}
    }
    assert publish["outputs"] is None


def test_a_run_shows_who_started_it_its_parameters_and_its_page_in_prefects_ui(
    api: Api, stack: PrefectStack, runs: dict[str, str]
) -> None:
    detail = api.wait_for(runs["three"])
    assert (detail["trigger"], detail["triggered_by"], detail["attempt"]) == ("API", "admin", 1)
    assert detail["input_params"].keys() == {"marks", "unless"}
    assert detail["domain"] == "demo.steps"
    assert detail["prefect_url"] == f"{stack.url.removesuffix('/api')}/runs/flow-run/{runs['three']}"
    assert detail["execution_id"]
    assert detail["duration_seconds"] > 0
    assert detail["parent_run_id"] is None


def test_loops_and_mapped_tasks_of_one_name_are_separate_steps(api: Api, runs: dict[str, str]) -> None:
    detail = api.wait_for(runs["many"])
    assert detail["status"] == "COMPLETED"
    steps = steps_by_name(detail)
    assert [step["outputs"] for step in steps["double"][:3]] == [{"result": 0}, {"result": 2}, {"result": 4}]
    assert sorted(step["outputs"]["result"] for step in steps["double"][3:]) == [20, 22]
    assert detail["step_count"] == 9
    assert detail["completed_step_count"] == 9


def test_a_child_flow_is_a_step_and_a_run_of_its_own(api: Api, stack: PrefectStack, runs: dict[str, str]) -> None:
    detail = api.wait_for(runs["many"])
    (step,) = steps_by_name(detail)["demo.child"]
    assert (step["status"], step["outputs"]) == ("COMPLETED", {"result": "grown"})
    children = api.get("/workflows/runs", workflow_name="demo.child", trigger="dependency", limit=100)["data"]
    (child,) = (
        run for run in map(api.run, (run["run_id"] for run in children)) if run["parent_run_id"] == runs["many"]
    )
    assert child["triggered_by"] == stack.get(f"/flow_runs/{runs['many']}")["name"]


def test_large_outputs_are_truncated_and_unpersisted_ones_are_null(api: Api, runs: dict[str, str]) -> None:
    steps = steps_by_name(api.wait_for(runs["many"]))
    large = steps["large"][0]["outputs"]
    assert large["truncated"] is True
    assert large["size_bytes"] > 100_000
    assert len(large["preview"]) == 1000
    assert steps["forget"][0]["outputs"] is None


def test_an_output_that_cannot_be_read_says_why(api: Api, stack: PrefectStack, runs: dict[str, str]) -> None:
    def outputs() -> Any:
        (pickled,) = steps_by_name(api.run(runs["many"]))["pickled"]
        return pickled["outputs"]

    reason = "Its result is stored as pickle, not json (result_serializer='json')."
    assert outputs() == {"unreadable": True, "reason": reason}
    which = {"flow_runs": {"id": {"any_": [runs["many"]]}}, "task_runs": {"name": {"like_": "pickled"}}}
    (step,) = stack.post("/task_runs/filter", which)
    (stack.home / "storage" / step["state"]["data"]["storage_key"]).unlink()
    assert outputs() == {"unreadable": True, "reason": "The API cannot read its persisted result."}


def test_attempts_inside_a_run_are_one_step_with_a_retry_count(api: Api, runs: dict[str, str]) -> None:
    detail = api.wait_for(runs["flaky"])
    assert (detail["status"], detail["attempt"]) == ("COMPLETED", 2)
    (step,) = detail["steps"]
    assert (step["status"], step["retry_count"]) == ("COMPLETED", 1)
    listed = api.get("/workflows/runs", workflow_name="demo.fails_once_inside")["data"]
    summary = next(run for run in listed if run["run_id"] == runs["flaky"])
    assert (summary["step_count"], summary["completed_step_count"], summary["failed_step_count"]) == (1, 1, 0)


def test_the_result_of_a_flow_gives_rows_and_capture(
    api: Api, runs: dict[str, str], tmp_path: Path, marks: Path
) -> None:
    unless = tmp_path / "exists"
    unless.touch()
    run_id = api.trigger("demo.three_steps", marks=str(marks), unless=str(unless))
    detail = recorded(api, run_id, 3)
    assert (detail["status"], detail["rows_processed"], detail["capture_id"]) == ("COMPLETED", 3, "demo-1")
    assert [step["status"] for step in detail["steps"]] == ["COMPLETED"] * 3
    # The detail of a run that is not completed has neither.
    assert api.wait_for(runs["three"])["capture_id"] is None


def test_an_exception_without_text_is_shown_by_its_class(api: Api, runs: dict[str, str]) -> None:
    detail = api.wait_for(runs["unpersisted"])
    assert detail["error"] == "KeyError: 'always'"
    assert detail["error_category"] == "PIPELINE"


def test_a_pickled_result_is_never_loaded(api: Api, stack: PrefectStack, tmp_path: Path) -> None:
    evil = tmp_path / "loaded"
    storage = stack.home / "storage"
    storage.mkdir(exist_ok=True)
    (storage / "evil").write_text(f'__import__("pathlib").Path({str(evil)!r}).touch()')
    run_id = stack.make_run(stack.flow_id("demo.typed"), "RUNNING")
    data = {"type": "pickle", "picklelib": "cloudpickle"}
    state = {
        "type": "COMPLETED",
        "data": {"storage_key": str(storage / "evil"), "serializer": data, "storage_block_id": None},
    }
    stack.post(f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})
    detail = api.run(run_id)
    assert (detail["status"], detail["rows_processed"]) == ("COMPLETED", None)
    assert not evil.exists()


def test_a_result_outside_the_result_storage_is_not_read(api: Api, stack: PrefectStack, tmp_path: Path) -> None:
    outside = tmp_path / "secret.json"
    outside.write_text('{"rows_processed": 7, "capture_id": "stolen"}')
    run_id = stack.make_run(stack.flow_id("demo.typed"), "RUNNING")
    data = {"storage_key": str(outside), "serializer": {"type": "json"}, "storage_block_id": None}
    stack.post(f"/flow_runs/{run_id}/set_state", {"state": {"type": "COMPLETED", "data": data}, "force": True})
    assert api.run(run_id)["capture_id"] is None


@pytest.mark.parametrize("run_id", ["nonsense", "00000000-0000-0000-0000-000000000000"])
def test_an_unknown_run_is_404(api: Api, run_id: str) -> None:
    response = api.client.get(f"/workflows/runs/{run_id}")
    assert response.status_code == 404
    assert run_id in response.json()["detail"]
