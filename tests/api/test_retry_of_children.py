"""A retry of a run whose child flows ran side by side: each call gets its own child again, or the retry is refused."""

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Failed
from spine.prefect.client import FlowRun
from spine.workflows.children import in_order_made
from spine.workflows.mixed_children import mixed_up_flow
from spine_worker.ambiguous_children import AmbiguousChildren, refuse_ambiguous_children

from tests.support.api_here import api_here
from tests.support.processes import wait_until
from tests.support.stack import FOLLOWING, Api, PrefectStack

ONCE = {"A": 1, "B": 1, "C": 1}


@pytest.fixture(scope="module")
def begun(api: Api, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path]]:
    """A run for each test and the folder of its files, started together."""
    runs = {}
    for name, workflow, broken in (
        ("child", "demo.children_at_once", "C"),
        ("end", "demo.children_at_once", "end"),
        ("twice", "demo.children_tried_twice", "C"),
    ):
        folder = tmp_path_factory.mktemp("children")
        files = {"marks": str(folder / "marks"), "unless": str(folder / "unless")}
        runs[name] = (api.trigger(workflow, broken=broken, **files), folder)
    return runs


def executed(folder: Path) -> Counter[str]:
    return Counter((folder / "marks").read_text().split())


def retried(api: Api, run_id: str, folder: Path) -> dict[str, Any]:
    """The detail of a failed run after a retry that succeeds."""
    api.wait_for(run_id, "FAILED")
    (folder / "unless").touch()
    response = api.client.post(f"/workflows/runs/{run_id}/retry")
    assert response.status_code == 200, response.text
    return api.wait_for(run_id, "COMPLETED")


def test_only_the_child_that_failed_runs_again(
    api: Api, stack: PrefectStack, begun: dict[str, tuple[str, Path]]
) -> None:
    run_id, folder = begun["child"]
    detail = retried(api, run_id, folder)
    assert executed(folder) == {**ONCE, "C": 2}
    assert (detail["step_count"], detail["completed_step_count"], detail["failed_step_count"]) == (6, 6, 0)
    assert {step["step_name"]: step["retry_count"] for step in detail["steps"] if step["retry_count"]} == {
        "demo.second_child": 1
    }
    assert returned(folder) == "ABC"
    assert calls_with_other_parameters(stack, run_id) == []


def test_each_call_gets_the_result_of_its_own_child(api: Api, begun: dict[str, tuple[str, Path]]) -> None:
    run_id, folder = begun["end"]
    detail = retried(api, run_id, folder)
    assert executed(folder) == ONCE
    assert detail["failed_step_count"] == 0
    assert returned(folder) == "ABC"


def test_a_second_attempt_in_the_same_process_runs_only_the_child_that_failed(
    api: Api, stack: PrefectStack, begun: dict[str, tuple[str, Path]]
) -> None:
    run_id, folder = begun["twice"]
    api.wait_for(run_id, "COMPLETED")
    assert executed(folder) == {**ONCE, "C": 2}
    assert returned(folder) == "ABC"
    assert calls_with_other_parameters(stack, run_id) == []


def returned(folder: Path) -> str:
    """The results of the children, in the order of the calls."""
    return (folder / "marks-returned").read_text().strip()


def calls_with_other_parameters(stack: PrefectStack, run_id: str) -> list[str]:
    """The calls of which an attempt did something else than the one before."""
    children = stack.post("/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run_id]}}})
    asked: dict[str, set[str]] = {}
    for child in children:
        asked.setdefault(child["parent_task_run_id"], set()).add(child["parameters"]["letter"])
    return [call for call, given in asked.items() if len(given) > 1]


@pytest.fixture(scope="module")
def of_a_process_worker(stack: PrefectStack) -> Iterator[dict[str, Any]]:
    """A deployment on a pool of Prefect's own process workers."""
    pool = f"process-{uuid4().hex[:6]}"
    stack.post("/work_pools/", {"name": pool, "type": "process"})
    name = stack.copy_deployment("demo.three_steps", pool)
    yield {"workflow": name, "deployment": next(iter(deployments_of(stack, name)))["id"]}
    stack.delete(f"/work_pools/{pool}")


def deployments_of(stack: PrefectStack, flow: str) -> list[dict[str, Any]]:
    """The deployments of a flow."""
    found: list[dict[str, Any]] = stack.post("/deployments/filter", {"flows": {"name": {"any_": [flow]}}})
    return found


def set_state(stack: PrefectStack, run_id: str, state: str, data: Any = None) -> None:
    body = {"state": {"type": state, "data": data}, "force": True}
    stack.post(f"/flow_runs/{run_id}/set_state", body)


def failed_parent(stack: PrefectStack, deployment: str, parameters: list[int], *, at_once: bool) -> str:
    """A failed run with a child for each of the parameters; the first fails, the others have results."""
    made = stack.post(f"/deployments/{deployment}/create_flow_run", {"enforce_parameter_schema": False})
    flow, children = stack.flow_id("demo.child"), []
    for number, value in enumerate(parameters):
        call = {"flow_run_id": made["id"], "task_key": "child-1", "dynamic_key": str(number), "name": f"child-{number}"}
        task = stack.post("/task_runs/", {**call, "state": {"type": "PENDING"}})
        fields = {"parent_task_run_id": task["id"], "parameters": {"value": value}}
        children.append(stack.make_run(flow, "PENDING", **fields))

    def end(child: str) -> None:
        set_state(stack, child, *(("FAILED",) if child == children[0] else ("COMPLETED", {"type": "reference"})))

    for child in children:
        set_state(stack, child, "RUNNING")
        if not at_once:
            end(child)
    for child in children if at_once else []:
        end(child)
    set_state(stack, made["id"], "RUNNING")
    set_state(stack, made["id"], "FAILED")
    return str(made["id"])


def test_a_retry_that_could_mix_up_children_is_refused_and_changes_nothing(
    api: Api, stack: PrefectStack, of_a_process_worker: dict[str, Any]
) -> None:
    run_id = failed_parent(stack, of_a_process_worker["deployment"], [1, 2, 3], at_once=True)
    before = stack.get(f"/flow_runs/{run_id}")
    response = api.client.post(f"/workflows/runs/{run_id}/retry")
    assert response.status_code == 409
    assert "'demo.child'" in response.json()["detail"]
    assert "side by side" in response.json()["detail"]
    assert stack.get(f"/flow_runs/{run_id}")["state_id"] == before["state_id"]


@pytest.mark.parametrize(("parameters", "at_once"), [([1, 2, 3], False), ([1, 1, 1], True), ([1], True)])
def test_children_in_sequence_equal_ones_and_a_single_one_can_be_retried(
    api: Api, stack: PrefectStack, of_a_process_worker: dict[str, Any], parameters: list[int], at_once: bool
) -> None:
    run_id = failed_parent(stack, of_a_process_worker["deployment"], parameters, at_once=at_once)
    response = api.client.post(f"/workflows/runs/{run_id}/retry")
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(("parameters", "at_once", "refused"), [([1, 2], True, True), ([1, 2], False, False)])
async def test_a_new_interpreter_of_our_worker_does_not_begin_such_a_run(
    stack: PrefectStack, of_a_process_worker: dict[str, Any], parameters: list[int], at_once: bool, refused: bool
) -> None:
    run_id = failed_parent(stack, of_a_process_worker["deployment"], parameters, at_once=at_once)
    with temporary_settings({PREFECT_API_URL: stack.url}):
        async with get_client() as client:
            run = await client.read_flow_run(UUID(run_id))
            with pytest.raises(AmbiguousChildren, match="side by side") if refused else nullcontext():
                await refuse_ambiguous_children(client, run)


def executed_again(stack: PrefectStack, deployment: str, again: int, *, at_once: bool = True) -> str:
    """A run that completed at its second attempt, in which the call of the first child was made with this parameter."""
    run_id = failed_parent(stack, deployment, [1, 2, 3], at_once=at_once)
    children = stack.post("/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run_id]}}})
    (failed,) = (child for child in children if child["state_type"] == "FAILED")
    set_state(stack, run_id, "RUNNING")
    fields = {"parent_task_run_id": failed["parent_task_run_id"], "parameters": {"value": again}}
    second = stack.make_run(failed["flow_id"], "PENDING", **fields)
    for state in ("RUNNING", "COMPLETED"):
        set_state(stack, second, state)
    set_state(stack, run_id, "COMPLETED")
    return run_id


@pytest.fixture(scope="module")
def following(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API that follows runs."""
    with api_here(stack.url, stack.home, Path(tmp_path_factory.mktemp("following")), **FOLLOWING) as made:
        yield made


@pytest.mark.slow
def test_a_run_whose_children_prefect_has_mixed_up_does_not_stay_completed(
    following: Api, stack: PrefectStack, of_a_process_worker: dict[str, Any]
) -> None:
    deployment = of_a_process_worker["deployment"]
    # The worker of type `spine` has matched them by their parameters.
    ours = deployments_of(stack, stack.copy_deployment("demo.three_steps"))[0]["id"]
    sound = [executed_again(stack, ours, 2)]
    # The same call again; a call whose parameters have changed otherwise; calls one after the other.
    for again, at_once in ((1, True), (9, True), (2, False)):
        sound.append(executed_again(stack, deployment, again, at_once=at_once))
    mixed_up = executed_again(stack, deployment, 2)
    detail = following.wait_for(mixed_up, "FAILED", seconds=60)
    assert "mixed up the child flows 'demo.child'" in detail["error"]
    assert detail["error_category"] == "ORCHESTRATION"
    assert stack.get(f"/flow_runs/{mixed_up}")["state"]["message"] == detail["error"]
    # It is recorded, and raises an alert, as any failure does.
    raised = {"source": detail["workflow_name"], "limit": 100}
    wait_until(lambda: following.get("/alerts", **raised)["data"], "the alert", 30)
    assert [stack.get(f"/flow_runs/{run_id}")["state_type"] for run_id in sound] == ["COMPLETED"] * len(sound)


def child_of(call: UUID, flow: UUID, value: int, at: int, *, id: UUID, failed: bool = False) -> FlowRun:
    """A child that Prefect stored at this second, and that ran for ten."""
    made = datetime(2026, 1, 5, tzinfo=UTC) + timedelta(seconds=at)
    state: State[Any] = Failed() if failed else Completed(data={"type": "reference"})
    times = {"created": made, "start_time": made, "end_time": made + timedelta(seconds=10)}
    return FlowRun(id=id, flow_id=flow, parent_task_run_id=call, parameters={"value": value}, state=state, **times)


@pytest.mark.parametrize("ids", list(permutations(range(1, 4))))
def test_the_order_of_children_is_that_in_which_they_were_made(ids: tuple[int, int, int]) -> None:
    first, again, other = (UUID(int=number << 120) for number in ids)
    call, beside, flow = uuid4(), uuid4(), uuid4()
    children = [
        child_of(call, flow, 1, 0, id=first, failed=True),
        child_of(beside, flow, 2, 1, id=other),
        child_of(call, flow, 2, 20, id=again),
    ]
    assert [child.id for child in in_order_made(reversed(children))] == [first, other, again]
    assert mixed_up_flow(children) == flow
    # What was asked for first, and asked for again, is no mistake.
    assert mixed_up_flow([*children[:2], child_of(call, flow, 1, 20, id=again)]) is None
