"""What Prefect has about one workflow, as raw JSON, and deployments of it with all that `prefect deploy` can set."""

import json
from fnmatch import fnmatch
from typing import Any
from uuid import uuid4

from tests.schedules.support import IDLE_POOL, PARAMETERS, Workflow

Json = dict[str, Any]

# What time or a worker changes by itself.
MOVING = {"updated", "updated_by", "last_polled", "status", "active_slots", "estimated_run_time"}

CRON = {"cron": "0 9 1-7 * FRI", "timezone": "America/New_York", "day_or": False}
INTERVAL = {"interval": 2_000_000.0, "anchor_date": "2020-02-03T04:05:06Z", "timezone": "Europe/Berlin"}
RRULE = {"rrule": "DTSTART:20200101T030000\nRRULE:FREQ=YEARLY;COUNT=50", "timezone": "Asia/Tokyo"}
ROW = {"active": True, "parameters": {"tier": "T1"}}

ROWS: dict[str, list[Json]] = {
    "a cron with a slug": [{**ROW, "schedule": CRON, "slug": "friday"}],
    "a cron without a slug": [{**ROW, "schedule": CRON}],
    "an interval": [{**ROW, "schedule": INTERVAL}],
    "a recurrence rule": [{**ROW, "schedule": RRULE, "slug": "yearly"}],
    "several": [
        {**ROW, "schedule": CRON, "slug": "east", "parameters": {"tier": "T1"}},
        {**ROW, "schedule": INTERVAL, "slug": "west", "parameters": {"tier": "OTC"}},
        {**ROW, "schedule": RRULE, "slug": "off", "active": False},
    ],
}


def as_polled(before: Json, after: Json) -> Json:
    """A deployment as it was before, with what Prefect may have recorded of it when workers polled for work."""
    fields = {"status", "last_polled"}
    if after["status"] != before["status"]:
        fields.add("updated")
    return before | {field: after[field] for field in fields}


def deploy_all(workflow: Workflow, rows: list[Json], name: str = "", **more: Any) -> str:
    """Deploy with everything that a file can say; the id of the deployment."""
    made = workflow.deploy(
        name or f"full-{uuid4().hex[:8]}",
        **{
            "schedules": rows,
            "parameters": {"week": "w1"},
            "parameter_openapi_schema": PARAMETERS,
            "enforce_parameter_schema": False,
            "description": "Words.",
            "version": "1.2.3",
            "tags": ["team", "nightly"],
            "labels": {"desk": "a"},
            "work_queue_name": "high",
            "job_variables": {"env": {"A": "1"}, "working_dir": "/srv"},
            "concurrency_limit": 3,
            "concurrency_options": {"collision_strategy": "CANCEL_NEW", "grace_period_seconds": 120},
            "path": "/srv/code",
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": "/srv/code"}}],
            **more,
        },
    )
    for row in made["schedules"]:
        # Prefect forgets this one when a deployment is deployed.
        limited = {"parameters": row["parameters"], "max_scheduled_runs": 7}
        workflow.stack.patch(f"/deployments/{made['id']}/schedules/{row['id']}", limited)
    workflow.stack.post(f"/deployments/{made['id']}/schedule", {})
    return str(made["id"])


def objects_of(workflow: Workflow, *more: str) -> Json:
    """The flow, its deployments by name, their planned runs, and the pool with its queues; `more` are deployments."""
    stack, of_flow = workflow.stack, {"flows": {"id": {"any_": [workflow.flow_id]}}}
    found = [*stack.post("/deployments/filter", of_flow), *(workflow.read(one) for one in more)]
    runs = stack.post("/flow_runs/filter", {**of_flow, "sort": "EXPECTED_START_TIME_ASC"})
    planned = [_planned(run) for run in runs if run["state_type"] == "SCHEDULED" and run["auto_scheduled"]]
    return {
        "flow": _still(stack.get(f"/flows/{workflow.flow_id}")),
        "deployments": {one["name"]: _deployment(one) for one in found},
        "planned": sorted(planned, key=lambda run: (run["expected_start_time"], run["schedule"])),
        "runs": {run["id"]: _still(run) for run in runs if not run["auto_scheduled"]},
        "pool": _still(stack.get(f"/work_pools/{IDLE_POOL}")),
        "queues": [_still(one) for one in stack.post(f"/work_pools/{IDLE_POOL}/queues/filter", {})],
    }


def differences(before: Any, after: Any, path: str = "") -> set[str]:
    """The paths of all values that differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = {*before, *after}
        return set().union(*(differences(before.get(n), after.get(n), f"{path}/{n}") for n in names))
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return set().union(*(differences(*pair, f"{path}/{place}") for place, pair in pairs))
    return set() if json.dumps(before) == json.dumps(after) else {path}


def unexpected(before: Json, after: Json, allowed: tuple[str, ...]) -> set[str]:
    """The differences that no pattern of `allowed` matches."""
    return {path for path in differences(before, after) if not any(fnmatch(path, one) for one in allowed)}


def _still(found: Json) -> Json:
    return {name: value for name, value in found.items() if name not in MOVING}


def _deployment(found: Json) -> Json:
    # Prefect gives the schedule that was changed last first.
    rows = sorted(found["schedules"], key=lambda row: (row["slug"] or "", row["created"]))
    limit = found["global_concurrency_limit"] and _still(found["global_concurrency_limit"])
    return {**_still(found), "schedules": [_still(row) for row in rows], "global_concurrency_limit": limit}


def _planned(run: Json) -> Json:
    """What a planned run is, apart from its own ids."""
    names = ("deployment_id", "expected_start_time", "parameters", "tags", "work_queue_name", "deployment_version")
    return {**{name: run[name] for name in names}, "schedule": run["created_by"]["id"]}
