"""`POST /trigger/{workflow_name}` and the rule that picks the deployment."""

from typing import Any
from uuid import uuid4

import pytest

from tests.support.stack import Api, PrefectStack

TYPED = "/workflows/trigger/demo.typed"


def count_runs(stack: PrefectStack, flow: str) -> int:
    return int(stack.post("/flow_runs/count", {"flows": {"name": {"any_": [flow]}}}))


@pytest.fixture(scope="module")
def typed(stack: PrefectStack) -> str:
    """The name of a workflow with the parameters of `demo.typed`, which no other test starts."""
    return stack.copy_deployment("demo.typed")


def test_a_trigger_starts_a_run_in_prefect(api: Api, stack: PrefectStack) -> None:
    response = api.client.post(TYPED, json={"params": {"day": "2025-12-15", "tier": "A"}})
    body = response.json()
    assert response.status_code == 201
    assert (body["workflow_name"], body["status"]) == ("demo.typed", "PENDING")
    run = stack.get(f"/flow_runs/{body['run_id']}")
    assert run["parameters"] == {"day": "2025-12-15", "tier": "A"}
    assert run["labels"]["spine.triggered_by"] == "admin"
    assert {"domain:demo.types", "spine:api"} <= set(run["tags"])
    detail = api.wait_for(body["run_id"])
    assert (detail["status"], detail["trigger"], detail["triggered_by"]) == ("COMPLETED", "API", "admin")


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({}, {("day",), ("tier",)}),
        ({"day": "2025-13-01", "tier": "A"}, {("day",)}),
        ({"day": "2025-12-15", "tier": "C", "count": "many"}, {("tier",), ("count",)}),
        ({"day": "2025-12-15", "tier": "A", "cuont": 2}, {("cuont",)}),
        ({"day": None, "tier": "A"}, {("day",)}),
        ({"day": "2025-12-15", "tier": "A", "options": [1]}, {("options",)}),
        ({"day": {"__prefect_kind": "jinja", "template": "{{ 7*7 }}"}, "tier": "A"}, {("day",)}),
        (
            {"day": "2025-12-15", "tier": "A", "options": {"a": [{"b": {"__prefect_kind": "workspace_variable"}}]}},
            {("options", "a", 0, "b")},
        ),
        ({"day": "2025-12-15", "tier": "A", "options": {"text": "\x00"}}, {("options", "text")}),
        ({"day": "2025-12-15", "tier": "A", "count": 2**63}, {("count",)}),
        ({"__prefect_kind": "json", "value": "{}"}, {("__prefect_kind",), ("day",), ("tier",), ("value",)}),
    ],
)
def test_each_invalid_parameter_is_listed_and_nothing_is_created(
    api: Api, stack: PrefectStack, typed: str, params: dict[str, Any], named: set[tuple[str | int, ...]]
) -> None:
    before = count_runs(stack, typed)
    response = api.client.post(f"/workflows/trigger/{typed}", json={"params": params})
    body = response.json()
    assert response.status_code == 400
    assert {tuple(error["loc"][2:]) for error in body["errors"]} == named
    assert all(str(loc[0]) in body["detail"] for loc in named)
    assert count_runs(stack, typed) == before


def test_nan_is_rejected(api: Api) -> None:
    text = '{"params": {"day": "2025-12-15", "tier": "A", "options": {"x": NaN}}}'
    response = api.client.post(TYPED, content=text, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert "NaN" in response.json()["detail"]


def test_text_that_looks_like_a_template_is_only_text(api: Api, stack: PrefectStack) -> None:
    params = {"day": "2025-12-15", "tier": "A", "options": {"text": "{{ 7 * 7 }}"}}
    run_id = api.trigger("demo.typed", **params)
    assert stack.get(f"/flow_runs/{run_id}")["parameters"]["options"] == {"text": "{{ 7 * 7 }}"}


def test_an_unknown_workflow_is_404_with_similar_names(api: Api) -> None:
    response = api.client.post("/workflows/trigger/demo.type", json={})
    assert response.status_code == 404
    assert "'demo.typed'" in response.json()["detail"]


def test_a_flow_without_deployment_is_409_that_says_how_to_deploy(api: Api, stack: PrefectStack) -> None:
    name = f"undeployed.{uuid4().hex}"
    stack.flow_id(name)
    response = api.client.post(f"/workflows/trigger/{name}", json={})
    assert response.status_code == 409
    assert "prefect deploy" in response.json()["detail"]
    assert api.client.get(f"/workflows/definitions/{name}").status_code == 409


def test_every_deployed_flow_is_a_workflow(api: Api, stack: PrefectStack) -> None:
    name = f"team.{uuid4().hex}"
    flow_id = stack.flow_id(name)
    deployment = {"name": "whatever", "flow_id": flow_id, "work_pool_name": "spine", "paused": True}
    made = stack.post("/deployments/", deployment)
    run_id = api.trigger(name)
    assert stack.get(f"/flow_runs/{run_id}")["deployment_id"] == made["id"]
    api.client.post(f"/workflows/runs/{run_id}/cancel")


def test_a_workflow_runs_on_the_deployment_with_its_name_else_on_the_oldest_and_never_on_a_schedule(
    api: Api, stack: PrefectStack
) -> None:
    name = f"ruled.{uuid4().hex}"
    flow_id = stack.flow_id(name)

    def deploy(deployment_name: str, **labels: str) -> str:
        body = {"name": deployment_name, "flow_id": flow_id, "work_pool_name": "spine", "labels": labels}
        return str(stack.post("/deployments/", body)["id"])

    def used() -> str:
        run_id = api.trigger(name)
        api.client.post(f"/workflows/runs/{run_id}/cancel")
        return str(stack.get(f"/flow_runs/{run_id}")["deployment_id"])

    deploy("nightly", **{"spine.schedule": "true"})
    assert api.client.post(f"/workflows/trigger/{name}", json={}).status_code == 409
    first = deploy("zeta")
    deploy("alpha")
    assert used() == first
    namesake = deploy(name)
    assert used() == namesake
