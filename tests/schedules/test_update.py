"""`PATCH /schedules/{id}`: only the fields that are sent change, and planned runs are planned again."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.schedules.support import FAR_AWAY, Schedules, Workflow, now
from tests.support.processes import wait_until
from tests.support.variants import one_by_default, one_in


def unchanged(before: dict[str, Any], after: dict[str, Any], *but: str) -> None:
    """Assert that all fields but these are as before."""
    moving = {"updated_at", "next_run_at", "timings", *but}
    assert {field: after[field] for field in after if field not in moving} == {
        field: before[field] for field in before if field not in moving
    }


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        *one_by_default(
            [
                ({"description": "New words."}, {"description": "New words."}),
                ({"description": None}, {"description": None}),
                ({"tags": ["b", "a"]}, {"tags": ["b", "a"]}),
                ({"tags": None}, {"tags": None}),
            ]
        ),
        *one_by_default(
            [
                ({"max_instances": 7}, {"max_instances": 7}),
                ({"max_instances": None}, {"max_instances": None, "overlap_policy": None}),
                ({"overlap_policy": "skip"}, {"overlap_policy": "SKIP"}),
            ]
        ),
        *one_by_default(
            [
                ({"cron_expression": "0 4 1 1 *"}, {"cron_expression": "0 4 1 1 *"}),
                ({"timezone": "Europe/London"}, {"timezone": "Europe/London"}),
                ({"interval_seconds": 90_000}, {"interval_seconds": 90_000, "cron_expression": None}),
            ]
        ),
        *one_by_default(
            [
                ({"target_params": {"week": "w2", "tier": "T1"}}, {"target_params": {"week": "w2", "tier": "T1"}}),
                ({"enabled": False}, {"enabled": False}),
                ({}, {}),
            ]
        ),
    ],
    ids=str,
)
def test_only_what_is_sent_changes(schedules: Schedules, sent: dict[str, Any], shown: dict[str, Any]) -> None:
    schedule_id = schedules.make(
        description="Words.", tags=["a"], max_instances=3, overlap_policy="ENQUEUE", timezone="America/New_York"
    )
    before = schedules.get(schedule_id)
    after = schedules.patch(schedule_id, **sent)
    assert {field: after[field] for field in shown} == shown
    unchanged(before, after, *shown)
    assert schedules.get(schedule_id) == after


def test_a_new_timing_replaces_the_planned_runs_at_once(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make(interval_seconds=3600)
    old = {run["id"] for run in workflow.planned(schedule_id)}
    assert old
    after = schedules.patch(schedule_id, cron_expression="15 4 * * *", timezone="America/New_York")
    # Prefect's scheduler may just have been planning the old timing.
    wait_until(lambda: {minute_of(run) for run in workflow.planned(schedule_id)} == {15}, "the new timing", 20)
    planned = workflow.planned(schedule_id)
    assert len(planned) >= 3
    assert not old & {run["id"] for run in planned}
    assert planned[0]["expected_start_time"] == after["next_run_at"]


def minute_of(run: dict[str, Any]) -> int:
    return datetime.fromisoformat(run["expected_start_time"]).minute


@pytest.mark.slow
def test_runs_that_the_scheduler_plans_late_for_an_old_timing_are_deleted(
    schedules: Schedules, workflow: Workflow
) -> None:
    schedule_id = schedules.make(interval_seconds=3600)
    schedules.patch(schedule_id, interval_seconds=7200)
    kept, *_, stray = workflow.planned(schedule_id)
    with workflow.stack.tables() as tables:
        tables.change("flow_run", stray["id"], created_by={**stray["created_by"], "id": str(uuid4())})

    def is_gone() -> bool:
        return stray["id"] not in {run["id"] for run in workflow.planned(schedule_id)}

    wait_until(is_gone, "the stray run to be deleted", 20)
    assert kept in workflow.planned(schedule_id)


def test_new_parameters_reach_the_planned_runs(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make(interval_seconds=3600)
    schedules.patch(schedule_id, target_params={"week": "w2"})
    assert {run["parameters"]["week"] for run in workflow.planned(schedule_id)} == {"w2"}


def test_cron_and_interval_replace_each_other(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make(timezone="Europe/London")
    after = schedules.patch(schedule_id, interval_seconds=7200)
    assert (after["cron_expression"], after["interval_seconds"], after["timezone"]) == (None, 7200, "Europe/London")
    assert timedelta(hours=1.9) < datetime.fromisoformat(after["next_run_at"]) - now() <= timedelta(hours=2)
    after = schedules.patch(schedule_id, cron_expression=FAR_AWAY)
    assert (after["cron_expression"], after["interval_seconds"]) == (FAR_AWAY, None)
    assert len(workflow.read(schedule_id)["schedules"]) == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    one_in(
        3,
        [
            ({"cron_expression": "nonsense"}, 400),
            ({"cron_expression": "0 0 30 2 *"}, 400),
            ({"timezone": "Nowhere/At_All"}, 400),
            ({"cron_expression": "0 1 * * *", "interval_seconds": 60}, 400),
            ({"cron_expression": None}, 400),
            ({"target_params": {"tier": "OTC"}}, 400),
            ({"target_params": {"week": {"__prefect_kind": "jinja", "template": "x"}}}, 400),
            ({"name": "another"}, 422),
            ({"target_name": "another"}, 422),
            ({"enabled": None}, 422),
            ({"timezone": None}, 422),
            ({"interval_seconds": 0}, 422),
        ],
    ),
    ids=str,
)
def test_an_invalid_value_changes_nothing(
    schedules: Schedules, workflow: Workflow, sent: dict[str, Any], status: int
) -> None:
    schedule_id = schedules.make()
    before = workflow.read(schedule_id)
    response = schedules.api.client.patch(f"/schedules/{schedule_id}", json={"description": "changed", **sent})
    assert response.status_code == status
    assert workflow.read(schedule_id) == before


@pytest.mark.slow
def test_two_concurrent_changes_leave_one_of_the_two_states(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make(interval_seconds=3600)
    states: list[dict[str, Any]] = [
        {"cron_expression": "5 5 * * *", "timezone": "Asia/Tokyo", "target_params": {"week": "a"}, "tags": ["a"]},
        {"interval_seconds": 5400, "timezone": "Europe/London", "target_params": {"week": "b"}, "tags": ["b"]},
    ]
    for _ in range(4):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda state: schedules.patch(schedule_id, **state), states))
        after = schedules.get(schedule_id)
        assert any(all(after[field] == value for field, value in state.items()) for state in states)
        assert len(workflow.read(schedule_id)["schedules"]) == 1
        planned = workflow.planned(schedule_id)
        assert {run["parameters"]["week"] for run in planned} == {after["target_params"]["week"]}
        assert planned[0]["expected_start_time"] == after["next_run_at"]


def test_a_new_time_zone_keeps_the_rest_of_the_timing(schedules: Schedules, workflow: Workflow) -> None:
    timing = {"cron": "0 9 13 1 FRI", "timezone": "UTC", "day_or": False}
    deployed = workflow.deploy("friday-13th", schedules=[{"schedule": timing}], parameters={"week": "w"})["id"]
    schedules.patch(deployed, timezone="Europe/Berlin")
    assert workflow.read(deployed)["schedules"][0]["schedule"] == {**timing, "timezone": "Europe/Berlin"}


def test_changing_a_disabled_schedule_keeps_it_disabled(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make(enabled=False)
    after = schedules.patch(schedule_id, interval_seconds=3600)
    assert (after["enabled"], after["next_run_at"]) == (False, None)
    assert workflow.planned(schedule_id) == []
    after = schedules.patch(schedule_id, interval_seconds=1800, enabled=True)
    assert (after["enabled"], after["interval_seconds"]) == (True, 1800)
    assert workflow.planned(schedule_id)[0]["expected_start_time"] == after["next_run_at"]


def test_a_schedule_deployed_by_ci_can_be_changed_and_deployed_again(schedules: Schedules, workflow: Workflow) -> None:
    row = {"schedule": {"cron": FAR_AWAY, "timezone": "UTC"}, "active": True, "parameters": {"week": "of the row"}}
    deployed = workflow.deploy("from-ci", parameters={"tier": "T1"}, schedules=[row])
    shown = schedules.get(deployed["id"])
    assert shown["target_params"] == {"tier": "T1", "week": "of the row"}
    after = schedules.patch(deployed["id"], cron_expression="0 5 1 1 *")
    assert (after["cron_expression"], after["target_params"]) == ("0 5 1 1 *", shown["target_params"])
    after = schedules.patch(deployed["id"], target_params={"week": "sent"})
    assert after["target_params"]["week"] == "sent"
    # With a slug, the file, which has none, could not be deployed again.
    assert [row["slug"] for row in workflow.read(deployed["id"])["schedules"]] == [None]


def test_the_timing_of_a_deployment_with_several_schedules_is_409(schedules: Schedules, workflow: Workflow) -> None:
    rows = [{"schedule": {"cron": cron, "timezone": "UTC"}} for cron in (FAR_AWAY, "0 4 1 1 *")]
    deployed = workflow.deploy("several", schedules=rows, parameters={"week": "w"})
    before = workflow.read(deployed["id"])
    for sent in ({"cron_expression": "0 5 1 1 *"}, {"interval_seconds": 60}, {"timezone": "Europe/London"}):
        response = schedules.api.client.patch(f"/schedules/{deployed['id']}", json=sent)
        assert response.status_code == 409
        assert "2 schedules" in response.json()["detail"]
    assert workflow.read(deployed["id"]) == before
    after = schedules.patch(deployed["id"], description="All else can change.")
    assert after["description"] == "All else can change."
    assert {timing["cron_expression"] for timing in after["timings"]} == {FAR_AWAY, "0 4 1 1 *"}
    assert (after["cron_expression"], after["interval_seconds"], after["timezone"]) == (None, None, "UTC")


def test_a_schedule_that_lost_its_timing_in_prefect_gets_a_new_one(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make()
    (row,) = workflow.read(schedule_id)["schedules"]
    workflow.stack.delete(f"/deployments/{schedule_id}/schedules/{row['id']}")
    shown = schedules.get(schedule_id)
    assert (shown["enabled"], shown["cron_expression"], shown["timings"]) == (False, None, [])
    assert schedules.api.client.post(f"/schedules/{schedule_id}/enable").status_code == 409
    after = schedules.patch(schedule_id, cron_expression=FAR_AWAY)
    assert (after["enabled"], after["cron_expression"]) == (True, FAR_AWAY)
