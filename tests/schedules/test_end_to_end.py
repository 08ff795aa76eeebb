"""A schedule on the bundled flow, run by the real scheduler and worker, seen from the API and from Prefect."""

import time
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest

from tests.support.processes import PROJECT, wait_until
from tests.support.stack import Api, PrefectStack

SAMPLE = str(PROJECT / "flows" / "finra" / "sample" / "finra_otc_weekly_sample.csv")
PARAMETERS = {"week_ending": "2026-01-05", "tier": "OTC", "path": SAMPLE}


def completed(api: Api, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = api.get(f"/schedules/{name}/runs", status="COMPLETED")["data"]
    return rows


@pytest.mark.slow
def test_a_schedule_every_two_seconds_from_creation_to_deletion(api: Api, stack: PrefectStack) -> None:
    name = f"every-two-seconds-{uuid4().hex[:6]}"
    body = {
        "name": name,
        "target_type": "WORKFLOW",
        "target_name": "finra.weekly_refresh",
        "target_params": PARAMETERS,
        "interval_seconds": 2,
        "max_instances": 2,
        "overlap_policy": "ENQUEUE",
    }
    response = api.client.post("/schedules", json=body)
    assert response.status_code == 201, response.text
    schedule_id = response.json()["id"]
    wait_until(lambda: len(completed(api, name)) >= 3, "three runs to complete", 120, every=0.5)
    assert api.client.post(f"/schedules/{name}/disable").status_code == 200
    in_progress = ("PENDING", "RUNNING")

    def all_ended() -> bool:
        return all(api.get(f"/schedules/{name}/runs", status=one)["pagination"]["total"] == 0 for one in in_progress)

    # Runs that were enqueued at the limit still run.
    wait_until(all_ended, "the started runs to end", 180, every=0.5)
    before = api.get(f"/schedules/{name}/runs", limit=100)
    time.sleep(6)
    after = api.get(f"/schedules/{name}/runs", limit=100)
    assert after == before
    rows = after["data"]
    due = [datetime.fromisoformat(row["scheduled_at"]) for row in rows]
    assert due == sorted(due, reverse=True)
    assert {int((one - due[-1]).total_seconds()) % 2 for one in due} == {0}
    assert {row["status"] for row in rows} == {"COMPLETED"}
    shown = api.get(f"/schedules/{name}")
    assert (shown["run_count"], shown["success_count"], shown["failure_count"]) == (len(rows), len(rows), 0)
    assert shown["last_run_at"] == max(row["started_at"] for row in rows)
    run = api.run(rows[0]["run_id"])
    assert (run["trigger"], run["triggered_by"], run["schedule_id"]) == ("SCHEDULE", name, schedule_id)
    assert run["domain"] == "finra.otc_transparency"
    assert run["rows_processed"] > 0
    _check_changes_in_prefect(api, stack, schedule_id)


def _check_changes_in_prefect(api: Api, stack: PrefectStack, schedule_id: str) -> None:
    """Change, pause and delete the schedule through Prefect's client; the API shows each change."""
    path = f"/deployments/{schedule_id}"
    (row,) = stack.get(path)["schedules"]
    timing = {"schedule": {"cron": "0 3 1 1 *", "timezone": "Asia/Tokyo"}, "active": True}
    stack.patch(f"{path}/schedules/{row['id']}", timing)
    stack.patch(path, {"description": "From Prefect.", "tags": ["by-hand"]})
    shown = api.get(f"/schedules/{schedule_id}")
    assert (shown["cron_expression"], shown["interval_seconds"]) == ("0 3 1 1 *", None)
    assert (shown["timezone"], shown["description"], shown["enabled"]) == ("Asia/Tokyo", "From Prefect.", True)
    assert shown["next_run_at"].endswith("12-31T18:00:00Z")
    stack.post(f"{path}/pause_deployment")
    assert api.get(f"/schedules/{schedule_id}")["enabled"] is False
    stack.delete(path)
    assert api.client.get(f"/schedules/{schedule_id}").status_code == 404
