"""The dates that Spine computes are those that Prefect's scheduler plans, around every change of the clock."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from spine.prefect.schedules import timing_of

from tests.schedules.support import Workflow

# The clock goes forward and back in 2027.
CHANGES = [
    ("America/New_York", "2027-03-14T07:00:00+00:00"),
    ("America/New_York", "2027-11-07T06:00:00+00:00"),
    ("Europe/London", "2027-03-28T01:00:00+00:00"),
    ("Europe/London", "2027-10-31T01:00:00+00:00"),
]
# Times from which dates are requested, in minutes from the change. From -60 to 60 minutes the clock skips or repeats an
# hour, and Prefect's classes give past dates there, or leave out one that they planned before.
MOMENTS = [-150, -59, -20, 0, 25, 59]
# 02:30 is skipped or repeated in New York, 01:30 in London.
CRONS = ["30 2 * * *", "30 1 * * *", "0 * * * *", "*/20 * * * *", "30 2 * * SUN"]
HOUR = 3600
INTERVALS = [90, 1200, HOUR, 6 * HOUR]
RRULES = ["DTSTART:20270101T013000\nFREQ=DAILY", "DTSTART:20270101T003000\nFREQ=HOURLY"]

Schedule = dict[str, Any]


def steady_schedules(zone: str) -> list[Schedule]:
    """Schedules whose dates do not depend on when they are planned; intervals of days are in `test_preview`."""
    anchor = "2026-01-04T06:30:13.250000+00:00"
    return [
        *({"cron": cron, "timezone": zone, "day_or": True} for cron in CRONS),
        *({"interval": seconds, "anchor_date": anchor, "timezone": zone} for seconds in INTERVALS),
        *({"rrule": rule, "timezone": zone} for rule in RRULES),
    ]


def deploy(workflow: Workflow, schedules: list[Schedule]) -> tuple[str, dict[str, Schedule]]:
    """A deployment; its id, and its schedules by the ids of their rows."""
    # If it were paused, the watcher would delete the planned runs.
    made = workflow.deploy("planned", schedules=[{"schedule": schedule, "active": True} for schedule in schedules])
    return made["id"], {row["id"]: row["schedule"] for row in made["schedules"]}


def plan(workflow: Workflow, deployment_id: str, start: datetime, end: datetime, count: int) -> None:
    """Let Prefect plan as its scheduler does at `start`, with the same code."""
    body = {"start_time": start.isoformat(), "end_time": end.isoformat(), "min_runs": count, "max_runs": count}
    workflow.stack.post(f"/deployments/{deployment_id}/schedule", body)


def planned(workflow: Workflow, deployment_id: str, start: datetime) -> dict[str, list[datetime]]:
    """The times of all runs planned from `start` on, by the id of the schedule's row."""
    # Pages in order of time can overlap if many runs have the same time.
    since = {"after_": start.isoformat()}
    of_deployment = {"deployment_id": {"any_": [deployment_id]}, "expected_start_time": since}
    wanted = {"flow_runs": of_deployment, "sort": "ID_DESC"}
    times: dict[str, list[datetime]] = {}
    count = workflow.stack.post("/flow_runs/count", {"flow_runs": wanted["flow_runs"]})
    runs = {
        run["id"]: run
        for offset in range(0, count, 150)
        for run in workflow.stack.post("/flow_runs/filter", {**wanted, "offset": offset, "limit": 200})
    }
    assert len(runs) == count
    for run in runs.values():
        times.setdefault(run["created_by"]["id"], []).append(datetime.fromisoformat(run["expected_start_time"]))
    return {row_id: sorted(found) for row_id, found in times.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("zone", "change"), CHANGES)
async def test_dates_around_a_change_of_the_clock(workflow: Workflow, zone: str, change: str) -> None:
    at = datetime.fromisoformat(change)
    end = at + timedelta(hours=30)
    deployment_id, schedules = deploy(workflow, steady_schedules(zone))
    begin = at - timedelta(hours=4)
    plan(workflow, deployment_id, begin, end, 280)
    expected = planned(workflow, deployment_id, begin)
    assert expected.keys() == schedules.keys()
    for minutes in MOMENTS:
        moment = at + timedelta(minutes=minutes, seconds=5)
        for row_id, schedule in schedules.items():
            coming = [time for time in expected[row_id] if time >= moment][:60]
            assert list(await timing_of(schedule).dates_from(moment, len(coming))) == coming, (schedule, minutes)
            if coming:
                assert await timing_of(schedule).next_from(moment) == coming[0], (schedule, minutes)
        plan(workflow, deployment_id, moment, end, 3)
    # At each of these times the scheduler finds only dates that it has planned already. Only for intervals of minutes
    # may it have left out some dates in the repeated hour, which it plans when it reaches them.
    planned_late = {row_id for row_id, schedule in schedules.items() if schedule.get("interval", HOUR) < HOUR}
    for row_id, times in planned(workflow, deployment_id, begin).items():
        later = [time for time in times if time not in expected[row_id]]
        assert all(row_id in planned_late and at <= time < at + timedelta(hours=1) for time in later), schedules[row_id]


OTHERS: list[tuple[str, Schedule, str]] = [
    ("the 31st", {"cron": "0 0 31 * *", "timezone": "UTC"}, "2027-01-15T00:00:00+00:00"),
    ("last day of the month", {"cron": "0 0 L * *", "timezone": "America/New_York"}, "2028-01-15T00:00:00+00:00"),
    ("leap day", {"cron": "0 12 29 2 *", "timezone": "Europe/London"}, "2027-01-01T00:00:00+00:00"),
    ("Friday or the 13th", {"cron": "0 9 13 * FRI", "timezone": "UTC"}, "2027-01-01T00:00:00+00:00"),
    (
        "Friday the 13th",
        {"cron": "0 9 13 * FRI", "timezone": "America/New_York", "day_or": False},
        "2027-01-01T00:00:00+00:00",
    ),
    ("second Tuesday", {"cron": "30 2 * * TUE#2", "timezone": "America/New_York"}, "2027-02-01T00:00:00+00:00"),
    (
        "every day by interval",
        {"interval": 86400, "anchor_date": "2026-01-01T02:30:00-05:00", "timezone": "America/New_York"},
        "2027-03-12T00:00:00+00:00",
    ),
    (
        "every week by interval",
        {"interval": 604800, "anchor_date": "2026-01-04T01:30:00+00:00", "timezone": "Europe/London"},
        "2027-10-20T00:00:00+00:00",
    ),
    (
        "recurrence rule that ends",
        {"rrule": "DTSTART:20270101T023000\nFREQ=WEEKLY;BYDAY=MO,SU;COUNT=25", "timezone": "America/New_York"},
        "2027-03-12T00:00:00+00:00",
    ),
]


@pytest.mark.parametrize(("what", "schedule", "start"), OTHERS, ids=[one[0] for one in OTHERS])
async def test_other_dates(workflow: Workflow, what: str, schedule: Schedule, start: str) -> None:
    begin = datetime.fromisoformat(start)
    deployment_id, schedules = deploy(workflow, [schedule])
    plan(workflow, deployment_id, begin, begin + timedelta(days=365 * 12), 8)
    ((row_id, stored),) = schedules.items()
    expected = planned(workflow, deployment_id, begin)[row_id]
    assert len(expected) >= 3, what
    assert list(await timing_of(stored).dates_from(begin, 8))[: len(expected)] == expected


async def test_the_next_date_advances_when_it_has_passed() -> None:
    timing = timing_of({"cron": "30 2 * * *", "timezone": "UTC"})
    noon = datetime(2027, 3, 1, 12, tzinfo=UTC)
    following = datetime(2027, 3, 2, 2, 30, tzinfo=UTC)
    assert await timing.next_from(noon) == following
    assert await timing.next_from(following) == following
    assert await timing.next_from(following + timedelta(microseconds=1)) == following + timedelta(days=1)
    assert await timing.next_from(noon) == following


async def test_a_cron_expression_that_matches_no_date_has_no_next_date() -> None:
    timing = timing_of({"cron": "0 0 31 2 *", "timezone": "UTC"})
    now = datetime(2027, 3, 1, 12, tzinfo=UTC)
    assert await timing.next_from(now) is None
    assert await timing.dates_from(now, 3) == []
