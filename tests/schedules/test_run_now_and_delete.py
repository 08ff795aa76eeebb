"""`POST /schedules/{id}/run-now` and `DELETE /schedules/{id}`, and their effect on the history."""

from uuid import uuid4

from tests.schedules.support import FAR_AWAY, Schedules, Workflow


def test_run_now_starts_a_run_with_the_schedules_parameters_even_if_disabled(
    schedules: Schedules, workflow: Workflow
) -> None:
    schedule_id = schedules.make(enabled=False, tags=["nightly"])
    response = schedules.api.client.post(f"/schedules/{schedule_id}/run-now")
    assert response.status_code == 201
    body = response.json()
    assert (body["workflow_name"], body["status"]) == (workflow.name, "PENDING")
    run = schedules.api.run(body["run_id"])
    assert (run["trigger"], run["triggered_by"], run["schedule_id"]) == ("API", "admin", schedule_id)
    assert run["input_params"] == {"week": "2026-01-05"}
    (listed,) = schedules.api.get(f"/schedules/{schedule_id}/runs")["data"]
    assert (listed["run_id"], listed["status"], listed["schedule_id"]) == (body["run_id"], "PENDING", schedule_id)
    assert not schedules.get(schedule_id)["enabled"]


def test_the_same_key_starts_one_run(schedules: Schedules) -> None:
    schedule_id = schedules.make()
    headers = {"Idempotency-Key": uuid4().hex}
    answers = [schedules.api.client.post(f"/schedules/{schedule_id}/run-now", headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201] * 3
    assert len({answer.content for answer in answers}) == 1
    assert schedules.api.get(f"/schedules/{schedule_id}/runs")["pagination"]["total"] == 1
    again = schedules.api.client.post(f"/schedules/{schedule_id}/run-now")
    assert again.json()["run_id"] != answers[0].json()["run_id"]


def test_a_schedule_deployed_by_ci_runs_with_its_own_parameters(schedules: Schedules, workflow: Workflow) -> None:
    row = {"schedule": {"cron": FAR_AWAY, "timezone": "UTC"}, "parameters": {"week": "of the row"}}
    deployed = workflow.deploy("from-ci", parameters={"tier": "T1"}, schedules=[row])["id"]
    run_id = schedules.api.client.post(f"/schedules/{deployed}/run-now").json()["run_id"]
    run = schedules.api.run(run_id)
    assert run["input_params"] == {"tier": "T1", "week": "of the row"}
    assert run["schedule_id"] == deployed


def test_parameters_that_the_code_no_longer_accepts_are_409(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make()
    stricter = {"type": "object", "properties": {"week": {"type": "integer"}}, "required": ["week"]}
    changed = {"parameter_openapi_schema": stricter, "enforce_parameter_schema": False}
    workflow.stack.patch(f"/deployments/{schedule_id}", changed)
    assert "week" in schedules.get(schedule_id)["problem"]
    workflow.stack.patch(f"/deployments/{schedule_id}", {"parameters": {}, "enforce_parameter_schema": True})
    response = schedules.api.client.post(f"/schedules/{schedule_id}/run-now")
    assert response.status_code == 409
    assert "week" in response.json()["detail"]


def test_deleting_stops_future_runs_and_keeps_the_history(schedules: Schedules, workflow: Workflow) -> None:
    name = f"gone-{uuid4().hex[:6]}"
    schedule_id = schedules.make(name=name, interval_seconds=3600)
    done = workflow.stack.make_run(
        workflow.flow_id, "COMPLETED", deployment_id=schedule_id, labels={"spine.schedule": name}
    )
    running = schedules.api.client.post(f"/schedules/{schedule_id}/run-now").json()["run_id"]
    workflow.stack.post(f"/flow_runs/{running}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    response = schedules.api.client.delete(f"/schedules/{name}")
    assert (response.status_code, response.json()["status"]) == (200, "deleted")
    assert workflow.planned(schedule_id) == []
    for path in (name, schedule_id, f"{name}/runs"):
        assert schedules.api.client.get(f"/schedules/{path}").status_code == 404
    assert schedules.api.client.delete(f"/schedules/{schedule_id}").status_code == 404
    for run_id, status in ((done, "COMPLETED"), (running, "RUNNING")):
        run = schedules.api.run(run_id)
        assert (run["status"], run["workflow_name"], run["schedule_id"]) == (status, workflow.name, schedule_id)
    # The name is free again.
    assert schedules.make(name=name) != schedule_id


def test_deleting_a_schedule_of_ci_keeps_the_deployment(schedules: Schedules, workflow: Workflow) -> None:
    row = {"schedule": {"cron": FAR_AWAY, "timezone": "UTC"}}
    workflow.deploy(workflow.name, schedules=[row, {"schedule": {"interval": 86400}}])
    assert schedules.api.client.delete(f"/schedules/{workflow.name}").status_code == 200
    assert schedules.api.client.get(f"/schedules/{workflow.name}").status_code == 404
    assert workflow.planned(workflow.own["id"]) == []
    assert schedules.api.get(f"/workflows/definitions/{workflow.name}")["name"] == workflow.name
