"""Runs that Prefect has planned: delete those from before a change, and plan them again."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID
from weakref import WeakValueDictionary

from spine.errors import SpineError
from spine.prefect.client import Deployment, DueRun, FlowRun, Prefect
from spine.prefect.filters import Json, RunFilter
from spine.prefect.schedules import timing_of
from spine.prefect.transport import texts
from spine.schedules.deployments import is_enabled
from spine.tables.base import utc_now

# Prefect's scheduler first reads the schedules and later stores their runs, so some runs can appear after a schedule
# was changed or disabled: seen within a second, on a busy machine.
SCHEDULER_LAG = timedelta(seconds=8)

_locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()


def change_lock(deployment_id: UUID) -> asyncio.Lock:
    """This process's lock for one schedule, to be locked from its change until its runs are planned again."""
    lock = _locks.get(deployment_id)
    if lock is None:
        lock = _locks[deployment_id] = asyncio.Lock()
    return lock


async def replan(prefect: Prefect, deployment: Deployment, since: datetime) -> None:
    """Plan the runs of an enabled schedule from `since`, a moment before the change, so that no run is lost between.

    The first run of an interval that was set just now is one interval later, not at once. If Prefect does not respond,
    nothing is lost: its scheduler plans the runs within seconds.
    """
    if not is_enabled(deployment):
        return
    anchors = [row.schedule["anchor_date"] for row in deployment.schedules if "anchor_date" in row.schedule]
    passed = [anchor for anchor in map(datetime.fromisoformat, anchors) if anchor <= utc_now()]
    later = [anchor + timedelta(microseconds=1) for anchor in passed]
    with suppress(SpineError):
        await prefect.plan_runs(deployment.id, max([since, *later]))


async def delete_planned(
    prefect: Prefect, deployment_id: UUID, *, due_too: bool, schedule_ids: Collection[UUID] = ()
) -> None:
    """Delete the planned runs that Prefect keeps when a schedule is paused or changed.

    Workers fetch runs some seconds ahead (ten by default) and set them PENDING or, at a concurrency limit, enqueue
    them; Prefect then counts both as started. This deletes those that are not due yet and, with `due_too`, also the
    enqueued ones that are due. A worker drops a run that no longer exists. With `schedule_ids`, only runs of these
    schedules are deleted.
    """
    now = utc_now()
    found = await prefect.list_runs(_planned_by([deployment_id], schedule_ids), "EXPECTED_START_TIME_ASC")
    await prefect.delete_runs([run.id for run in found if _has_not_started(run, now, due_too)])


async def delete_outdated(prefect: Prefect, deployment_ids: Sequence[UUID]) -> None:
    """Delete the planned runs of schedules that have been replaced, and those with an old timing or old parameters.

    Prefect's scheduler first reads the schedules and later stores their runs, so runs as they were before can appear
    after the change. A changed schedule is a new row, whose id its runs have, or the same row if it has a slug.
    """
    runs = await prefect.all_runs(_planned_by(deployment_ids))
    # In this order, so that runs of a change made between the two calls are not among those that were read.
    deployments = await prefect.deployments_by_id(deployment_ids)
    now = utc_now()
    not_started = [run for run in runs if _has_not_started(run, now, due_too=False)]
    outdated: list[FlowRun] = []
    for deployment in deployments.values():
        outdated += await _outdated(deployment, [run for run in not_started if run.deployment_id == deployment.id])
    await prefect.delete_runs([run.id for run in outdated])


async def _outdated(deployment: Deployment, runs: Sequence[FlowRun]) -> list[FlowRun]:
    current: set[UUID] = set()
    for row in deployment.schedules:
        parameters = {**deployment.parameters, **row.parameters}
        of_row = [run for run in runs if planned_for(run) == row.id and run.parameters == parameters]
        dates = [run.expected_start_time for run in of_row if run.expected_start_time is not None]
        try:
            kept = await timing_of(row.schedule).may_have(dates)
        except (ValueError, OverflowError):
            # Prefect's own classes do not accept what it has stored, so nobody knows its dates.
            kept = set(dates)
        current |= {run.id for run in of_row if run.expected_start_time in kept}
    return [run for run in runs if run.id not in current]


def planned_for(run: FlowRun | DueRun) -> UUID | None:
    """The id of the schedule row that a run was planned for."""
    return run.created_by.id if run.created_by else None


def _planned_by(deployment_ids: Sequence[UUID], schedule_ids: Collection[UUID] = ()) -> RunFilter:
    creator: Json = {"type_": ["SCHEDULE"]}
    if schedule_ids:
        creator["id_"] = texts(schedule_ids)
    return RunFilter(
        runs={
            "deployment_id": {"any_": texts(deployment_ids)},
            "state": {"type": {"any_": ["SCHEDULED", "PENDING"]}},
            "created_by": creator,
        }
    )


def _has_not_started(run: FlowRun, now: datetime, due_too: bool) -> bool:
    is_due = run.expected_start_time is not None and run.expected_start_time <= now
    is_enqueued = run.state_type is not None and run.state_type.value == "SCHEDULED"
    return run.run_count == 0 and (not is_due or (due_too and is_enqueued))
