"""`GET /schedules/preview-next`: when Prefect will run schedules."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.auth.domains import EVERY_DOMAIN
from spine.prefect.client import Prefect
from spine.schedules.preview import next_runs, preview_next

from tests.schedules.support import FAR_AWAY, Schedules, Workflow, now
from tests.support.processes import wait_until
from tests.support.stack import Api, PrefectStack


@pytest.fixture(scope="module")
def stack(quiet_stack: PrefectStack) -> PrefectStack:
    """A server without other schedules, which would come before those of a test."""
    return quiet_stack


@pytest.fixture(scope="module")
def api(quiet_api: Api) -> Api:
    return quiet_api


def preview(schedules: Schedules, count: int, **query: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = schedules.api.get("/schedules/preview-next", count=count, **query)
    return rows


def times(rows: list[dict[str, Any]]) -> list[datetime]:
    return [datetime.fromisoformat(row["next_run_at"]) for row in rows]


def deploy(workflow: Workflow, name: str, *schedules: dict[str, Any]) -> str:
    """A deployment with planned runs; its id."""
    rows = [{"schedule": schedule, "active": True} for schedule in schedules]
    deployment_id = str(workflow.deploy(name, schedules=rows)["id"])
    workflow.stack.post(f"/deployments/{deployment_id}/schedule", {})
    return deployment_id


def hourly(first: datetime) -> dict[str, Any]:
    return {"interval": 3600, "anchor_date": first.isoformat(), "timezone": "UTC"}


@asynccontextmanager
async def connected(stack: PrefectStack) -> AsyncIterator[Prefect]:
    """Prefect as the services have it, to call them for other times than now."""
    with temporary_settings({PREFECT_API_URL: stack.url}):
        async with Prefect.connect(9) as prefect:
            yield prefect


def test_one_schedule_shows_the_runs_that_the_scheduler_planned_and_those_after_them(
    schedules: Schedules, workflow: Workflow
) -> None:
    # Only Prefect's running scheduler plans these.
    row = {"schedule": {"cron": "17 4 * * *", "timezone": "America/New_York"}, "active": True}
    deployment_id = workflow.deploy("planned", schedules=[row])["id"]
    wait_until(lambda: len(workflow.planned(deployment_id)) >= 3, "Prefect's scheduler", 30)
    planned = [run["expected_start_time"] for run in workflow.planned(deployment_id)]
    rows = preview(schedules, 10, schedule_id="planned")
    assert [row["next_run_at"] for row in rows][: len(planned)] == planned
    assert len(rows) == 10
    assert times(rows) == sorted(times(rows))
    shown = {
        (row["schedule_id"], row["schedule_name"], row["cron_expression"], row["interval_seconds"]) for row in rows
    }
    assert shown == {(deployment_id, "planned", "17 4 * * *", None)}


def test_the_next_runs_of_all_schedules_are_in_order_of_time(schedules: Schedules) -> None:
    often = schedules.make(interval_seconds=600)
    seldom = schedules.make(interval_seconds=1500)
    off = schedules.make(interval_seconds=60, enabled=False)
    mine = [row for row in preview(schedules, 100) if row["schedule_id"] in (often, seldom, off)]
    assert times(mine) == sorted(times(mine))
    assert off not in {row["schedule_id"] for row in mine}
    for schedule_id, seconds in ((often, 600), (seldom, 1500)):
        coming = times([row for row in mine if row["schedule_id"] == schedule_id])
        gaps = {(later - earlier).total_seconds() for earlier, later in itertools.pairwise(coming)}
        assert gaps == {seconds}
    # Both schedules are shown up to the same time.
    last = {one: max(times([row for row in mine if row["schedule_id"] == one])) for one in (often, seldom)}
    assert abs((last[often] - last[seldom]).total_seconds()) <= 1500
    assert preview(schedules, 3) == preview(schedules, 100)[:3]


def test_a_schedule_with_few_planned_runs_continues_among_the_others(schedules: Schedules) -> None:
    # Prefect plans the frequent one for an hour, the others for days: 100 times reach beyond that hour.
    often = schedules.make(interval_seconds=120)
    for hours in (2, 3):
        schedules.make(interval_seconds=hours * 3600)
    rows = preview(schedules, 100)
    coming = times([row for row in rows if row["schedule_id"] == often])
    until = max(times(rows))
    assert until - coming[-1] < timedelta(seconds=120)
    assert len(coming) >= (until - coming[0]).total_seconds() // 120


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETED"])
def test_a_planned_run_that_was_cancelled_or_started_early_is_left_out(
    schedules: Schedules, workflow: Workflow, state: str
) -> None:
    schedule_id = schedules.make(interval_seconds=3600)
    first, second, *_ = workflow.planned(schedule_id)
    workflow.stack.post(f"/flow_runs/{first['id']}/set_state", {"state": {"type": state}, "force": True})
    for query in ({"schedule_id": schedule_id}, {}):
        rows = [row for row in preview(schedules, 5, **query) if row["schedule_id"] == schedule_id]
        assert rows[0]["next_run_at"] == second["expected_start_time"]
    assert schedules.get(schedule_id)["next_run_at"] == second["expected_start_time"]
    # A run that was cancelled before it was due is not listed until its due time; one that ran early is.
    listed = [run["id"] for run in schedules.api.get(f"/schedules/{schedule_id}/runs")["data"]]
    assert listed == ([first["id"]] if state == "COMPLETED" else [])


def test_a_run_that_a_worker_fetched_early_is_still_shown(schedules: Schedules, workflow: Workflow) -> None:
    soon = deploy(workflow, "soon", hourly(now() + timedelta(minutes=2)))
    # So many others that no later run of the first is among the next planned runs.
    for minutes in (3, 4, 5):
        deploy(workflow, f"in-{minutes}", hourly(now() + timedelta(minutes=minutes)))
    first = workflow.planned(soon)[0]
    workflow.stack.post(f"/flow_runs/{first['id']}/set_state", {"state": {"type": "PENDING"}})
    expected = [("soon", first["expected_start_time"])]
    assert [(row["schedule_name"], row["next_run_at"]) for row in preview(schedules, 1)] == expected
    assert schedules.get(soon)["next_run_at"] == first["expected_start_time"]


def test_enqueued_runs_that_are_due_are_not_shown(schedules: Schedules, workflow: Workflow) -> None:
    schedule_id = deploy(workflow, "waits", hourly(now() - timedelta(minutes=30)))
    past = {"start_time": (now() - timedelta(hours=6)).isoformat(), "end_time": now().isoformat()}
    workflow.stack.post(f"/deployments/{schedule_id}/schedule", past)
    due = [run for run in workflow.planned(schedule_id) if datetime.fromisoformat(run["expected_start_time"]) < now()]
    assert len(due) >= 3
    again = {"scheduled_time": (now() + timedelta(seconds=30)).isoformat()}
    waiting = {"type": "SCHEDULED", "name": "AwaitingConcurrencySlot", "state_details": again}
    for run in due:
        workflow.stack.post(f"/flow_runs/{run['id']}/set_state", {"state": waiting, "force": True})
    rows = preview(schedules, 3)
    assert len(rows) == 3
    assert times(rows)[0] > now()
    assert rows == preview(schedules, 100)[:3]


def test_runs_at_the_same_time_are_in_order_of_name_whatever_the_count(
    schedules: Schedules, workflow: Workflow
) -> None:
    at = now() + timedelta(minutes=10)
    for name in ("d", "c", "b", "a"):
        deploy(workflow, name, hourly(at))
    for count in (1, 2, 3, 4):
        assert [row["schedule_name"] for row in preview(schedules, count)] == ["a", "b", "c", "d"][:count]
    assert [row["schedule_name"] for row in preview(schedules, 6)] == ["a", "b", "c", "d", "a", "b"]


def test_dates_between_planned_runs_are_shown(schedules: Schedules, workflow: Workflow) -> None:
    first = now() + timedelta(minutes=10)
    schedule_id = deploy(workflow, "gap", hourly(first))
    far = {"start_time": first + timedelta(hours=10), "end_time": first + timedelta(hours=13)}
    workflow.stack.post(f"/deployments/{schedule_id}/schedule", {name: time.isoformat() for name, time in far.items()})
    for query in ({"schedule_id": schedule_id}, {}):
        assert times(preview(schedules, 16, **query)) == [first + timedelta(hours=hours) for hours in range(16)]


def test_a_schedule_without_planned_runs_is_shown(schedules: Schedules) -> None:
    # Prefect plans a hundred days ahead.
    month = (now().month + 6) % 12 + 1
    schedule_id = schedules.make(cron_expression=f"0 3 1 {month} *")
    assert schedule_id in {row["schedule_id"] for row in preview(schedules, 100)}


@pytest.mark.parametrize("days", [1, 7])
@pytest.mark.parametrize(
    ("zone", "change"),
    [("America/New_York", "2027-11-07T06:00:00+00:00"), ("Europe/London", "2027-03-28T01:00:00+00:00")],
)
async def test_intervals_of_days_across_a_change_of_the_clock(
    workflow: Workflow, zone: str, change: str, days: int
) -> None:
    """After the change Prefect continues at another hour, and still runs what it had planned before at the old hour."""
    at = datetime.fromisoformat(change)
    rule = {"interval": days * 86400, "anchor_date": "2026-01-04T06:30:13.250000Z", "timezone": zone}
    schedule_id = deploy(workflow, "by-days", rule)
    moments = [at + days * timedelta(hours=hours) for hours in (-40, -20, -0.5, 0.7, 8, 26, 30, 50)]
    hours_shown = set()
    async with connected(workflow.stack) as prefect:
        for moment in moments:
            deployment = await prefect.read_deployment(UUID(schedule_id))
            shown = [row.next_run_at for row in await preview_next(prefect, 3, schedule_id, EVERY_DOMAIN, None, moment)]
            following = (await next_runs(prefect, [deployment], moment))[deployment.id]
            # What the scheduler plans at this time, in addition to what it planned before.
            workflow.stack.post(
                f"/deployments/{schedule_id}/schedule",
                {"start_time": moment.isoformat(), "min_runs": 3, "end_time": "2028-06-01T00:00:00Z"},
            )
            known = [datetime.fromisoformat(run["expected_start_time"]) for run in workflow.planned(schedule_id)]
            assert shown == [time for time in known if time >= moment][:3]
            assert following == shown[0]
            hours_shown |= {time.hour for time in shown}
    assert len(hours_shown) > 1


def test_each_of_several_timings_has_its_own_rows(schedules: Schedules, workflow: Workflow) -> None:
    rows = [
        {"schedule": {"cron": "0 3 * * *", "timezone": "UTC"}},
        {"schedule": {"interval": 86400, "anchor_date": "2026-01-01T15:00:00Z", "timezone": "UTC"}},
        {"schedule": {"cron": "0 9 * * *", "timezone": "UTC"}, "active": False},
    ]
    deployment_id = workflow.deploy("several", schedules=rows)["id"]
    shown = preview(schedules, 4, schedule_id=deployment_id)
    assert {(row["cron_expression"], row["interval_seconds"]) for row in shown} == {("0 3 * * *", None), (None, 86400)}
    assert [time.hour for time in times(shown)] in ([3, 15, 3, 15], [15, 3, 15, 3])


def test_a_disabled_schedule_has_no_next_runs_and_an_unknown_one_is_404(schedules: Schedules) -> None:
    assert preview(schedules, 5, schedule_id=schedules.make(enabled=False)) == []
    assert len(preview(schedules, 5, schedule_id=schedules.make(cron_expression=FAR_AWAY))) == 5
    response = schedules.api.client.get("/schedules/preview-next", params={"schedule_id": "no-such"})
    assert response.status_code == 404


@pytest.mark.parametrize("count", [0, 101, "x"])
def test_a_count_out_of_bounds_is_422(schedules: Schedules, count: object) -> None:
    response = schedules.api.client.get("/schedules/preview-next", params={"count": str(count)})
    assert response.status_code == 422
