"""One record that cannot be read stops nobody: runs and deployments in Prefect that hold what a list cannot send."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect import flow
from spine.oddities import ODDITIES

from tests.alerts.conftest import FAST_RETRIES
from tests.alerts.support import Alerts
from tests.run_history.support import Line
from tests.support.api_here import api_here
from tests.support.flows_here import flows_on
from tests.support.processes import wait_until
from tests.support.receivers import receiver
from tests.support.stack import FOLLOWING, Api, PrefectStack
from tests.support.web import PLAIN, WEB

WIDE = 2**64
# As deep as Prefect stores and cannot list. Since 3.9 it lists numbers of any width.
DEEP: Any = None
for _ in range(254):
    DEEP = [DEEP]
FAR_AWAY = {"schedule": {"cron": "0 3 1 1 *", "timezone": "UTC"}}


@flow(name="poison.child")
def child(ident: int) -> str:
    return f"{ident}"


@flow(name="poison.parent")
def parent() -> None:
    child(WIDE)


@pytest.fixture(scope="module")
def stack(quiet_stack: PrefectStack) -> Iterator[PrefectStack]:
    """A server that no other test reads meanwhile."""
    yield quiet_stack
    ODDITIES.forget()


def make_line(stack: PrefectStack, **fields: Any) -> Line:
    flow_id = stack.flow_id(f"poisoned.{uuid4().hex[:10]}")
    body = {"name": f"poisoned-{uuid4().hex[:6]}", "flow_id": flow_id, "schedules": [FAR_AWAY], **fields}
    return Line(stack, flow_id, UUID(stack.post("/deployments/", body)["id"]))


def cannot_list(stack: PrefectStack) -> bool:
    """Whether Prefect fails to list its runs; it closes the connection with the answer, which can get lost."""
    try:
        answer = httpx.post(f"{stack.url}/flow_runs/filter", json={}, timeout=20, verify=PLAIN)
    except httpx.TransportError:
        return True
    return answer.status_code == 500


@pytest.fixture(scope="module")
def poisoned(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A deployment whose default is too wide, with runs that are too wide and too deep, and an inline child flow's."""
    line = make_line(stack, parameters={"seed": WIDE})
    for parameters in ({"seed": WIDE}, {"seed": -WIDE}, {"nested": DEEP}):
        line.put(line.make("SCHEDULED", parameters=parameters), "COMPLETED")
    stack.post(f"/deployments/{line.id}/create_flow_run", {})
    with flows_on(stack, Path(tmp_path_factory.mktemp("inline"))):
        parent()
    yield line
    for flow_id in (line.flow_id, stack.flow_id("poison.child"), stack.flow_id("poison.parent")):
        stack.delete(f"/flows/{flow_id}")


@pytest.fixture
def good(stack: PrefectStack, poisoned: Line) -> Iterator[Line]:
    """Another deployment beside it."""
    assert cannot_list(stack)
    line = make_line(stack)
    yield line
    stack.delete(f"/flows/{line.flow_id}")


@pytest.fixture(scope="module")
def following(stack: PrefectStack, poisoned: Line, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API that follows runs."""
    more = {**FAST_RETRIES, **FOLLOWING}
    with api_here(stack.url, stack.home, Path(tmp_path_factory.mktemp("poisoned")), **more) as api:
        yield api


def ready(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = WEB.get(f"{api.url}/health/ready").json()
    return found


def test_lists_show_the_poisoned_runs_and_all_others(following: Api, poisoned: Line, good: Line) -> None:
    made = good.make("COMPLETED")
    shown = {one["run_id"]: one for one in following.get("/workflows/runs", limit=100)["data"]}
    assert made in shown
    # Runs that a schedule has only planned are not listed.
    stored = good.stack.post("/ui/flow_runs/history", {"limit": 200})
    assert set(shown) == {one["id"] for one in stored if datetime.fromisoformat(one["timestamp"]) < datetime.now(UTC)}
    mine = [one for one in shown.values() if one["workflow_name"] == poisoned.flow_name]
    assert all(following.run(one["run_id"])["run_id"] == one["run_id"] for one in mine)
    assert len(mine) == 4
    (inline,) = (one for one in shown.values() if one["workflow_name"] == "poison.child")
    assert following.run(inline["run_id"])["input_params"] == {"ident": WIDE}
    (its_parent,) = (one for one in shown.values() if one["workflow_name"] == "poison.parent")
    assert [step["step_name"] for step in following.run(its_parent["run_id"])["steps"]]
    paged = [following.get("/workflows/runs", limit=2, offset=place)["data"] for place in range(0, len(shown), 2)]
    assert sorted(one["run_id"] for page in paged for one in page) == sorted(shown)


def test_schedules_and_definitions_are_listed(following: Api, poisoned: Line, good: Line) -> None:
    names = {one["id"] for one in following.get("/schedules", limit=100)["data"]}
    assert {str(poisoned.id), str(good.id)} <= names
    assert following.get(f"/schedules/{poisoned.id}/runs")["pagination"]["total"] == 4
    assert following.get("/schedules/preview-next", count=5)
    workflows = {one["name"] for one in following.get("/workflows/definitions", limit=100)["data"]}
    assert {poisoned.flow_name, good.flow_name} <= workflows


def test_a_failure_beside_the_poison_raises_its_alert(following: Api, good: Line) -> None:
    with receiver() as desk:
        Alerts(following).channel(desk)
        good.run_through("RUNNING", "FAILED")
        wait_until(lambda: any(one.json["source"] == good.flow_name for one in desk.posts), "the alert", 30)
        Alerts(following).delete_channels()


def test_readiness_and_metrics_name_the_poison_once_and_the_follower_is_not_behind(
    following: Api, poisoned: Line, good: Line
) -> None:
    run_id = good.make("COMPLETED")
    following.get("/workflows/runs")
    wait_until(lambda: following.get(f"/schedules/{good.id}")["success_count"] == 1, f"{run_id} to be counted", 30)
    found = ready(following)
    assert found["records"]["state"] == "degraded"
    detail = found["records"]["detail"]
    assert "seed: whole numbers must fit into 64 bits" in detail or "Prefect cannot send it in a list" in detail, detail
    assert found["records"]["since"] is not None
    wait_until(lambda: ready(following)["follower"]["state"] == "up", "the follower to be up", 30)
    metrics = WEB.get(f"{following.url}/metrics").text
    assert 'spine_records_set_aside{kind="flow run"}' in metrics
    assert "spine_follower_lag_seconds" in metrics
    assert "spine_follower_runs_behind" in metrics


def test_a_run_that_would_be_poison_is_refused_with_the_name_of_its_parameter(following: Api, poisoned: Line) -> None:
    before = len(poisoned.stack.post("/ui/flow_runs/history", {"limit": 200}))
    trigger = following.client.post(f"/workflows/trigger/{poisoned.flow_name}", json={})
    assert trigger.status_code == 400
    assert "seed: the deployment's default breaks a rule: whole numbers must fit into 64 bits" in trigger.text
    sent = following.client.post(f"/workflows/trigger/{poisoned.flow_name}", json={"params": {"seed": WIDE}})
    assert sent.status_code == 400
    assert "seed" in sent.text
    now = following.client.post(f"/schedules/{poisoned.id}/run-now")
    assert now.status_code == 409
    assert "seed" in now.text
    changed = following.client.patch(f"/schedules/{poisoned.id}", json={"target_params": {"seed": WIDE}})
    assert changed.status_code == 400
    assert "seed" in changed.text
    failed = poisoned.make("FAILED", parameters={"seed": WIDE})
    retried = following.client.post(f"/workflows/runs/{failed}/retry")
    assert retried.status_code == 409
    assert "seed" in retried.text
    poisoned.stack.delete(f"/flow_runs/{failed}")
    assert len(poisoned.stack.post("/ui/flow_runs/history", {"limit": 200})) == before


def test_an_error_is_cut_in_lists_and_whole_in_the_detail(following: Api, good: Line) -> None:
    run_id = good.make("SCHEDULED")
    good.put(run_id, "FAILED", message=f"Flow run encountered an exception: ValueError: {'x' * 200_000}")
    (listed,) = following.get("/workflows/runs", workflow_name=good.flow_name)["data"]
    assert len(listed["error"]) == 1_000
    assert listed["error"].endswith("x…")
    (of_schedule,) = following.get(f"/schedules/{good.id}/runs")["data"]
    assert of_schedule["error"] == listed["error"]
    assert following.run(run_id)["error"] == f"ValueError: {'x' * 200_000}"
