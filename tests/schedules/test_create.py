"""`POST /schedules`: what it creates in Prefect, what it refuses, and that names stay unique under concurrency."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.schedules.support import PARAMETERS, Schedules, Workflow, now
from tests.support.stack import Api, PrefectStack


def test_a_schedule_is_a_deployment_of_the_flow_that_runs_the_same_code(
    schedules: Schedules, workflow: Workflow
) -> None:
    workflow.own = workflow.deploy(
        workflow.name, parameters={"tier": "T1"}, tags=["domain:a.b", "nice"], job_variables={"env": {"A": "1"}}
    )
    answer = schedules.post(
        name=(name := f"weekly {uuid4().hex[:6]}"),
        cron_expression="30 6 * * MON-FRI",
        timezone="America/New_York",
        description="Every working day.",
        tags=["nightly", "desk:rates"],
        max_instances=2,
        overlap_policy="skip",
    ).json()
    assert answer["status"] == "created"
    made = workflow.read(answer["id"])
    for same in ("entrypoint", "pull_steps", "job_variables", "parameter_openapi_schema", "flow_id", "work_pool_name"):
        assert made[same] == workflow.own[same]
    assert (made["name"], made["description"], made["paused"]) == (name, "Every working day.", False)
    assert made["parameters"] == {"week": "2026-01-05", "tier": "T1"}
    assert made["tags"] == ["nightly", "desk:rates", "domain:a.b"]
    (row,) = made["schedules"]
    assert row["schedule"] == {"cron": "30 6 * * MON-FRI", "timezone": "America/New_York", "day_or": True}
    assert row["active"] is True
    assert made["global_concurrency_limit"]["limit"] == 2
    assert made["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    shown = schedules.get(answer["id"])
    expected = {
        "name": name,
        "target_type": "WORKFLOW",
        "target_name": workflow.name,
        "target_params": {"week": "2026-01-05", "tier": "T1"},
        "cron_expression": "30 6 * * MON-FRI",
        "interval_seconds": None,
        "timezone": "America/New_York",
        "enabled": True,
        "description": "Every working day.",
        "tags": ["nightly", "desk:rates"],
        "max_instances": 2,
        "overlap_policy": "SKIP",
        "last_run_at": None,
        "run_count": 0,
        "success_count": 0,
        "failure_count": 0,
        "consecutive_failures": 0,
        "created_by": "admin",
        "problem": None,
    }
    assert {field: shown[field] for field in expected} == expected
    assert schedules.get(name) == shown


def test_the_first_runs_are_planned_when_the_response_arrives(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make(interval_seconds=3600)
    planned = workflow.planned(schedule_id)
    assert len(planned) >= 2
    assert planned[0]["parameters"] == {"week": "2026-01-05"}
    assert schedules.get(schedule_id)["next_run_at"] == planned[0]["expected_start_time"]


def test_a_schedule_created_disabled_has_no_planned_runs(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make(interval_seconds=3600, enabled=False, target_type="pipeline")
    shown = schedules.get(schedule_id)
    assert (shown["enabled"], shown["next_run_at"], shown["target_type"]) == (False, None, "PIPELINE")
    assert workflow.planned(schedule_id) == []


def test_an_overlap_policy_without_max_instances_means_one_run_at_a_time(schedules: Schedules) -> None:
    shown = schedules.get(schedules.make(overlap_policy="ENQUEUE"))
    assert (shown["max_instances"], shown["overlap_policy"]) == (1, "ENQUEUE")


WRONG: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"target_name": "no.such.flow"}, "No workflow", ["body", "target_name"]),
    ({"target_params": {}}, "week", ["body", "target_params", "week"]),
    ({"target_params": {"week": "x", "tier": "XX"}}, "tier", ["body", "target_params", "tier"]),
    ({"target_params": {"week": "x", "typo": 1}}, "typo", ["body", "target_params", "typo"]),
    (
        {"target_params": {"week": {"__prefect_kind": "jinja", "template": "{{ 7*7 }}"}}},
        "__prefect_kind",
        ["body", "target_params", "week"],
    ),
    ({"cron_expression": "61 * * * *"}, "61 * * * *", ["body", "cron_expression"]),
    ({"cron_expression": "0 0 * * * *"}, "five", ["body", "cron_expression"]),
    ({"cron_expression": "H 0 * * *"}, "Invalid", ["body", "cron_expression"]),
    ({"cron_expression": "0 0 31 2 *"}, "never", ["body", "cron_expression"]),
    ({"timezone": "America/New_Yrok"}, "America/New_York", ["body", "timezone"]),
    ({"timezone": "Mars/Olympus"}, "IANA", ["body", "timezone"]),
    ({"cron_expression": None}, "neither", ["body", "cron_expression"]),
    ({"cron_expression": "0 0 * * *", "interval_seconds": 60}, "both", ["body", "cron_expression"]),
    ({"name": "a/b"}, "'/'", ["body", "name"]),
    ({"name": "preview-next"}, "reserved", ["body", "name"]),
    ({"name": "b1946ac9-2492-4d23-8f1c-000000000000"}, "is an id", ["body", "name"]),
    ({"name": " padded"}, "space", ["body", "name"]),
]


@pytest.mark.parametrize(("fields", "said", "where"), WRONG, ids=[str(next(iter(one[0].items()))) for one in WRONG])
def test_an_invalid_value_is_400_with_its_location_and_changes_nothing(
    schedules: Schedules, workflow: Workflow, fields: dict[str, Any], said: str, where: list[str]
) -> None:
    of_flow = {"flows": {"id": {"any_": [workflow.flow_id]}}}
    before = workflow.stack.post("/deployments/count", of_flow)
    response = schedules.post(**fields)
    assert response.status_code == 400
    assert said in response.json()["detail"]
    assert where in [error["loc"] for error in response.json()["errors"]]
    assert workflow.stack.post("/deployments/count", of_flow) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"interval_seconds": 0},
        {"interval_seconds": 1.5},
        {"interval_seconds": 10**12},
        {"max_instances": 0},
        {"overlap_policy": "QUEUE"},
        {"target_type": "JOB"},
        {"name": ""},
        {"colour": "red"},
        {"target_params": [1]},
        {"name": "nul\x00"},
        {"tags": ["nul\x00"]},
        {"description": "\ud800"},
    ],
    ids=str,
)
def test_a_body_that_does_not_fit_the_schema_is_422(schedules: Schedules, fields: dict[str, Any]) -> None:
    # As escapes, because a lone surrogate cannot be encoded.
    body = json.dumps(schedules.body(**fields))
    headers = {"Content-Type": "application/json"}
    assert schedules.api.client.post("/schedules", content=body, headers=headers).status_code == 422


def test_a_flow_without_a_deployment_is_an_invalid_target(schedules: Schedules, stack: PrefectStack) -> None:
    name = f"bare.{uuid4().hex[:8]}"
    stack.flow_id(name)
    response = schedules.post(target_name=name)
    assert response.status_code == 400
    assert "prefect.yaml" in response.json()["detail"]


def test_a_served_flow_is_an_invalid_target(schedules: Schedules, workflow: Workflow) -> None:
    workflow.stack.patch(f"/deployments/{workflow.own['id']}", {"work_pool_name": None})
    response = schedules.post()
    assert response.status_code == 400
    assert "work pool" in response.json()["detail"]


def test_a_taken_name_is_409_and_its_owner_is_unchanged(schedules: Schedules, workflow: Workflow) -> None:
    name = f"taken-{uuid4().hex[:6]}"
    first = schedules.make(name=name)
    deployed = workflow.deploy(f"ci-{uuid4().hex[:6]}", tags=["from-ci"])
    before = [workflow.read(first), workflow.read(deployed["id"]), workflow.read(workflow.own["id"])]
    for taken in (name, deployed["name"], workflow.name):
        response = schedules.post(name=taken, target_params={"week": "another"})
        assert response.status_code == 409
        assert taken in response.json()["detail"]
    assert [workflow.read(first), workflow.read(deployed["id"]), workflow.read(workflow.own["id"])] == before


def race(schedules: Schedules, apis: list[Api], name: str) -> list[int]:
    def create(number: int) -> int:
        body = schedules.body(name=name, target_params={"week": str(number)})
        return apis[number % len(apis)].client.post("/schedules", json=body).status_code

    with ThreadPoolExecutor(20) as pool:
        return list(pool.map(create, range(20)))


def test_of_twenty_requests_at_once_exactly_one_creates_the_schedule(
    schedules: Schedules, api: Api, workflow: Workflow
) -> None:
    name = f"raced-{uuid4().hex[:6]}"
    assert Counter(race(schedules, [api], name)) == {201: 1, 409: 19}
    assert schedules.get(name)["name"] == name


@pytest.mark.slow
def test_of_twenty_requests_to_two_processes_exactly_one_creates_the_schedule(
    schedules: Schedules, postgresql_api: Api, second_postgresql_api: Api
) -> None:
    name = f"raced-{uuid4().hex[:6]}"
    assert Counter(race(schedules, [postgresql_api, second_postgresql_api], name)) == {201: 1, 409: 19}


@pytest.mark.slow
def test_a_claim_expires_after_its_owner_has_died(postgresql_api: Api, workflow: Workflow) -> None:
    schedules = Schedules(postgresql_api, workflow)
    name = f"claimed-{uuid4().hex[:6]}"

    def claim(age: timedelta) -> None:
        with psycopg.connect(str(postgresql_api.database_url), autocommit=True) as connection:
            connection.execute("DELETE FROM schedule_name_claims WHERE name = %s", (name,))
            connection.execute("INSERT INTO schedule_name_claims VALUES (%s, 'gone', %s)", (name, now() - age))

    claim(timedelta(seconds=5))
    assert schedules.post(name=name).status_code == 409
    claim(timedelta(seconds=60))
    assert schedules.post(name=name).status_code == 201


def test_parameters_are_checked_with_the_defaults_of_the_workflows_own_deployment(
    schedules: Schedules, workflow: Workflow
) -> None:
    workflow.deploy(workflow.name, parameters={"week": "from the deployment"})
    shown = schedules.get(schedules.make(target_params=None))
    assert shown["target_params"] == {"week": "from the deployment"}
    assert set(PARAMETERS["properties"]) >= set(shown["target_params"])


def test_a_request_without_a_valid_key_is_401(api: Api, schedules: Schedules) -> None:
    anonymous = api.as_key("not-a-key-at-all-really")
    assert anonymous.get("/schedules").status_code == 401
    assert anonymous.post("/schedules", json=schedules.body()).status_code == 401
