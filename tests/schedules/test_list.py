"""`GET /schedules`: which deployments are schedules, filters, pages and statistics."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.pagination import PageRequest
from spine.prefect.client import Prefect
from spine.schedules.listing import ScheduleListing

from tests.schedules.support import FAR_AWAY, Schedules, Workflow, make_workflow
from tests.support.stack import PrefectStack

ROW = {"schedule": {"cron": FAR_AWAY, "timezone": "UTC"}, "active": True}


def names(schedules: Schedules, **query: object) -> list[str]:
    body = schedules.api.get("/schedules", limit=100, target_name=schedules.workflow.name, **query)
    assert body["pagination"]["total"] == len(body["data"])
    return [row["name"] for row in body["data"]]


def test_only_deployments_with_a_schedule_are_listed_newest_first(schedules: Schedules, workflow: Workflow) -> None:
    assert names(schedules) == []
    workflow.deploy("from-ci", schedules=[ROW])
    schedules.make(name=(made := f"made-{uuid4().hex[:6]}"))
    workflow.deploy("no-schedule")
    assert names(schedules) == [made, "from-ci"]
    shown = schedules.get(workflow.stack.deployment(workflow.name, "from-ci")["id"])
    assert (shown["created_by"], shown["target_type"], shown["enabled"]) == (None, "WORKFLOW", True)


@pytest.mark.slow
def test_a_deployment_that_gains_or_loses_its_schedule_in_prefect_is_listed_accordingly(
    schedules: Schedules, workflow: Workflow
) -> None:
    path = f"/deployments/{workflow.own['id']}/schedules"
    assert names(schedules) == []
    for _ in range(2):
        (row,) = workflow.stack.post(path, [ROW])
        assert names(schedules) == [workflow.name]
        workflow.stack.delete(f"{path}/{row['id']}")
        assert names(schedules) == []


def test_a_deleted_schedule_beyond_the_page_no_longer_counts(schedules: Schedules, workflow: Workflow) -> None:
    deployed = workflow.deploy("from-ci", schedules=[ROW])
    schedules.make(name=(kept := f"made-{uuid4().hex[:6]}"))
    query: dict[str, Any] = {"target_name": workflow.name, "limit": 1}
    assert schedules.api.get("/schedules", **query)["pagination"]["total"] == 2
    assert schedules.api.client.delete(f"/schedules/{deployed['id']}").status_code == 200
    page = schedules.api.get("/schedules", **query)
    assert ([row["name"] for row in page["data"]], page["pagination"]["total"]) == ([kept], 1)


def test_filters_combine(schedules: Schedules, workflow: Workflow) -> None:
    on, off, pipe = (f"{kind}-{uuid4().hex[:6]}" for kind in ("on", "off", "pipe"))
    schedules.make(name=on)
    schedules.make(name=off, enabled=False)
    schedules.make(name=pipe, enabled=False, target_type="PIPELINE")
    paused = workflow.deploy("paused-as-a-whole", schedules=[ROW])["id"]
    workflow.stack.post(f"/deployments/{paused}/pause_deployment")
    assert names(schedules, enabled=True) == [on]
    assert names(schedules, enabled=False) == ["paused-as-a-whole", pipe, off]
    assert names(schedules, target_type="pipeline") == [pipe]
    assert names(schedules, target_type="WORKFLOW", enabled=False) == ["paused-as-a-whole", off]
    assert schedules.api.get("/schedules", target_name="no.such.flow")["data"] == []
    assert schedules.api.client.get("/schedules", params={"target_type": "JOB"}).status_code == 422


@pytest.mark.slow
@pytest.mark.parametrize("query", [{}, {"enabled": "true"}], ids=["plain", "filtered"])
def test_pages_do_not_overlap(schedules: Schedules, query: dict[str, str]) -> None:
    made = [schedules.make() for _ in range(5)]
    seen: list[str] = []
    for offset in range(0, 6, 2):
        query_of_page = {**query, "target_name": schedules.workflow.name, "offset": offset, "limit": 2}
        body = schedules.api.get("/schedules", **query_of_page)
        assert body["pagination"] == {"offset": offset, "limit": 2, "total": 5, "has_more": offset < 4}
        seen += [row["id"] for row in body["data"]]
    assert seen == made[::-1]


def test_a_schedule_is_found_only_by_its_id_or_name(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make(name=(name := f"with space {uuid4().hex[:6]}"))
    assert schedules.get(name) == schedules.get(schedule_id)
    for unknown in ("no-such", str(uuid4()), workflow.own["id"], workflow.name):
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/enable"), ("POST", "/run-now"), ("GET", "/runs")):
            assert schedules.api.client.request(method, f"/schedules/{unknown}{path}").status_code == 404
        assert schedules.api.client.patch(f"/schedules/{unknown}", json={"tags": []}).status_code == 404


def test_an_ambiguous_name_is_409_with_the_ids(schedules: Schedules, stack: PrefectStack) -> None:
    other = make_workflow(stack)
    try:
        ids = [flow.deploy("shared-name", schedules=[ROW])["id"] for flow in (schedules.workflow, other)]
        response = schedules.api.client.get("/schedules/shared-name")
        assert response.status_code == 409
        assert all(one in response.json()["detail"] for one in ids)
        assert schedules.get(ids[0])["target_name"] == schedules.workflow.name
    finally:
        stack.delete(f"/flows/{other.flow_id}")


def test_a_deployment_with_several_schedules_shows_them_all(schedules: Schedules, workflow: Workflow) -> None:
    rows = [
        {"schedule": {"cron": FAR_AWAY, "timezone": "Europe/London"}, "active": False},
        {"schedule": {"interval": 86400, "anchor_date": "2026-01-01T00:00:00Z", "timezone": "UTC"}},
        {"schedule": {"rrule": "FREQ=WEEKLY;BYDAY=MO", "timezone": "UTC"}, "active": True},
    ]
    shown = schedules.get(workflow.deploy("several", schedules=rows)["id"])
    assert (shown["cron_expression"], shown["interval_seconds"], shown["enabled"]) == (None, None, True)
    shapes = {
        (one["cron_expression"], one["interval_seconds"], one["rrule"], one["timezone"], one["enabled"])
        for one in shown["timings"]
    }
    assert shapes == {
        (FAR_AWAY, None, None, "Europe/London", False),
        (None, 86400, None, "UTC", True),
        (None, None, "DTSTART:20200101T000000\nFREQ=WEEKLY;BYDAY=MO", "UTC", True),
    }
    assert shown["next_run_at"] is not None


@pytest.mark.slow
def test_statistics_count_the_whole_history(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = schedules.make()
    for state in ("COMPLETED", "FAILED", "COMPLETED", "FAILED", "CRASHED"):
        workflow.stack.make_run(workflow.flow_id, state, deployment_id=schedule_id)
    running = workflow.stack.make_run(workflow.flow_id, "SCHEDULED", deployment_id=schedule_id)
    workflow.stack.post(f"/flow_runs/{running}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    (row,) = schedules.api.get("/schedules", target_name=workflow.name)["data"]
    counts = ("run_count", "success_count", "failure_count", "consecutive_failures")
    assert [row[count] for count in counts] == [6, 2, 3, 2]
    started = workflow.stack.get(f"/flow_runs/{running}")["start_time"]
    assert row["last_run_at"] == started
    workflow.stack.post(f"/flow_runs/{running}/set_state", {"state": {"type": "COMPLETED"}, "force": True})
    assert [schedules.get(schedule_id)[count] for count in counts] == [6, 3, 3, 0]


@pytest.mark.slow
async def test_totals_are_exact_when_pages_are_read_at_once_and_plain_workflows_appear(workflow: Workflow) -> None:
    listing = ScheduleListing()
    mine = {"flows": {"id": {"any_": [workflow.flow_id]}}}
    with temporary_settings({PREFECT_API_URL: workflow.stack.url}):
        async with Prefect.connect(9) as prefect:
            for number in range(8):
                await asyncio.to_thread(workflow.deploy, f"plain-{number}")
                # Beyond the last row, where nothing on the page would show what was counted by mistake.
                pages = await asyncio.gather(*(listing.page(prefect, mine, None, PageRequest(50, 1)) for _ in range(6)))
                assert {total for _, total in pages} == {0}
