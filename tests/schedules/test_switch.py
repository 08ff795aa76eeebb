"""Enable and disable, over the API and in Prefect; each shows the changes of the other."""

import itertools
import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.schedules.project import project
from tests.schedules.support import FAR_AWAY, Schedules, Workflow, now
from tests.schedules.test_deploy_guard import SLUGS, SOURCE, schedule
from tests.support.processes import wait_until
from tests.support.stack import Api, PrefectStack


def plan_past_runs(workflow: Workflow, schedule_id: str) -> None:
    """Let Prefect plan runs that have been due for hours, as after an outage."""
    begin = now() - timedelta(hours=5)
    body = {"start_time": begin.isoformat(), "end_time": (begin + timedelta(hours=4)).isoformat()}
    workflow.stack.post(f"/deployments/{schedule_id}/schedule", body)


def test_disabling_deletes_planned_and_late_runs_and_is_idempotent(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make(interval_seconds=600)
    plan_past_runs(workflow, schedule_id)
    assert workflow.planned(schedule_id)
    for _ in range(2):
        answer = schedules.act(schedule_id, "disable")
        assert (answer["id"], answer["status"]) == (schedule_id, "disabled")
        assert workflow.planned(schedule_id) == []
        shown = schedules.get(schedule_id)
        assert (shown["enabled"], shown["next_run_at"]) == (False, None)
    deployment = workflow.read(schedule_id)
    # The schedule is inactive, as after a click on its switch in Prefect's UI.
    assert (deployment["paused"], [row["active"] for row in deployment["schedules"]]) == (False, [False])


def test_enabling_starts_at_the_next_due_time_and_makes_up_no_missed_run(
    schedules: Schedules, workflow: Workflow
) -> None:
    schedule_id = schedules.make(interval_seconds=600, enabled=False)
    (row,) = workflow.read(schedule_id)["schedules"]
    # As if it had been created and disabled ten days ago.
    anchor = (now() - timedelta(days=10)).isoformat()
    changed = {"schedule": {"interval": 600, "anchor_date": anchor, "timezone": "UTC"}}
    workflow.stack.patch(f"/deployments/{schedule_id}/schedules/{row['id']}", changed)
    begun = now()
    for _ in range(2):
        assert schedules.act(schedule_id, "enable")["status"] == "enabled"
        planned = [datetime.fromisoformat(run["expected_start_time"]) for run in workflow.planned(schedule_id)]
        assert len(planned) >= 3
        assert begun < planned[0] <= begun + timedelta(seconds=601)
        assert {(later - earlier).total_seconds() for earlier, later in itertools.pairwise(planned)} == {600}
        shown = schedules.get(schedule_id)
        assert shown["enabled"]
        assert datetime.fromisoformat(shown["next_run_at"]) == planned[0]


def test_a_switch_in_prefect_shows_in_the_api(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make()
    path = f"/deployments/{schedule_id}"
    (row,) = workflow.read(schedule_id)["schedules"]

    def shows(enabled: bool) -> None:
        shown = schedules.get(schedule_id)
        assert (shown["enabled"], shown["next_run_at"] is not None) == (enabled, enabled)

    workflow.stack.post(f"{path}/pause_deployment")
    shows(False)
    workflow.stack.post(f"{path}/resume_deployment")
    shows(True)
    workflow.stack.patch(f"{path}/schedules/{row['id']}", {"active": False})
    shows(False)
    workflow.stack.patch(f"{path}/schedules/{row['id']}", {"active": True})
    shows(True)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["deployment", "schedule", "both"])
def test_a_schedule_paused_in_prefect_can_be_enabled_over_the_api(
    schedules: Schedules, workflow: Workflow, how: str
) -> None:
    schedule_id = schedules.make()
    path = f"/deployments/{schedule_id}"
    (row,) = workflow.read(schedule_id)["schedules"]
    if how != "schedule":
        workflow.stack.post(f"{path}/pause_deployment")
    if how != "deployment":
        workflow.stack.patch(f"{path}/schedules/{row['id']}", {"active": False})
    assert not schedules.get(schedule_id)["enabled"]
    schedules.act(schedule_id, "enable")
    assert schedules.get(schedule_id)["enabled"]
    assert workflow.planned(schedule_id)


def test_enabling_restores_a_deployment_with_several_schedules(schedules: Schedules, workflow: Workflow) -> None:
    rows = [
        {"schedule": {"cron": FAR_AWAY, "timezone": "UTC"}, "active": True},
        {"schedule": {"cron": "0 4 1 1 *", "timezone": "UTC"}, "active": False},
    ]
    deployed = workflow.deploy("several", schedules=rows, parameters={"week": "w"})["id"]
    schedules.act(deployed, "disable")
    assert not schedules.get(deployed)["enabled"]
    assert workflow.planned(deployed) == []
    schedules.act(deployed, "enable")
    shown = schedules.get(deployed)
    assert shown["enabled"]
    assert {timing["cron_expression"]: timing["enabled"] for timing in shown["timings"]} == {
        FAR_AWAY: True,
        "0 4 1 1 *": False,
    }


@pytest.mark.slow
def test_an_api_process_disables_again_by_itself(
    stack: PrefectStack, api: Api, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with project(stack, tmp_path_factory.mktemp("by-itself")) as ci:
        cases: list[dict[str, Any]] = [{"name": f"{ci.prefix} {slug}", "schedules": [schedule(slug)]} for slug in SLUGS]
        names = [str(case["name"]) for case in cases]
        ci.deploy(SOURCE, cases)
        for name in names:
            assert api.client.post(f"/schedules/{name}/disable").status_code == 200
        before = {name: ci.deployed(name) for name in names}
        ci.deploy(SOURCE, cases)
        for name in names:
            assert ci.deployed(name)["updated"] > before[name]["updated"]
            wait_until(lambda name=name: not ci.deployed(name)["schedules"][0]["active"], f"{name} to be disabled", 30)  # type: ignore[misc]
            assert ci.planned(before[name]["id"]) == []
        assert api.client.post(f"/schedules/{names[0]}/enable").status_code == 200
        # The new timing is a new schedule in Prefect, created by the same request that enables it.
        changed = {"cron_expression": "0 5 1 1 *", "enabled": True}
        assert api.client.patch(f"/schedules/{names[1]}", json=changed).status_code == 200
        time.sleep(3)
        assert [api.get(f"/schedules/{name}")["enabled"] for name in names] == [True, True]
