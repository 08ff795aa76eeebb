"""Runs that Prefect has planned: delete those of before a change, and plan anew."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID
from weakref import WeakValueDictionary

from spine.errors import SpineError
from spine.prefect.client import Deployment, FlowRun, Prefect
from spine.prefect.filters import Json, RunFilter
from spine.prefect.transport import texts
from spine.schedules.deployments import is_enabled
from spine.tables.base import utc_now

# Prefect's scheduler first reads which schedules there are and later stores their runs, so that some can appear after a
# schedule was changed or switched off: seen within a second, on a busy machine.
TIME_FOR_THE_SCHEDULER = timedelta(seconds=8)

_changing: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()


def one_change_at_a_time(deployment_id: UUID) -> asyncio.Lock:
    """A lock of this process for one schedule, from changing it until its runs are planned anew."""
    lock = _changing.get(deployment_id)
    if lock is None:
        lock = _changing[deployment_id] = asyncio.Lock()
    return lock


async def plan_again(prefect: Prefect, deployment: Deployment, since: datetime) -> None:
    """Plan the runs of an enabled schedule from `since`, a moment before the change, so that none is lost between.

    An interval that was set just now has its first run one interval after that, not at once. Should Prefect not
    answer, nothing is lost: its scheduler comes by within seconds.
    """
    if not is_enabled(deployment):
        return
    anchors = [row.schedule["anchor_date"] for row in deployment.schedules if "anchor_date" in row.schedule]
    passed = [anchor for anchor in map(datetime.fromisoformat, anchors) if anchor <= utc_now()]
    later = [anchor + timedelta(microseconds=1) for anchor in passed]
    with suppress(SpineError):
        await prefect.plan_runs(deployment.id, max([since, *later]))


async def delete_unbegun(
    prefect: Prefect, deployment_id: UUID, *, due_too: bool, schedule_ids: Collection[UUID] = ()
) -> None:
    """Delete the planned runs that Prefect leaves when a schedule is paused or changed.

    Workers fetch runs some seconds ahead (ten by default) and put them into PENDING or, at a concurrency limit, into a
    queue; Prefect takes both for begun. Those that are not due yet are deleted, with `due_too` also those that are due
    and wait in the queue. A worker drops a run that is gone. With `schedule_ids`, only runs of these schedules count.
    """
    now = utc_now()
    found = await prefect.list_runs(_planned_of([deployment_id], schedule_ids), "EXPECTED_START_TIME_ASC")
    await prefect.delete_runs([run.id for run in found if _is_unbegun(run, now, due_too)])


def row_id(run: FlowRun) -> UUID | None:
    """The row of the schedule that a planned run was planned for."""
    return run.created_by.id if run.created_by else None


async def delete_outdated(prefect: Prefect, deployment_ids: Sequence[UUID]) -> None:
    """Delete the planned runs of schedules that were replaced in the meantime.

    Prefect's scheduler first reads the schedules and later stores their runs: those of an old timing can appear after
    the change. They name the row of the schedule that they were planned for, which a change makes anew.
    """
    runs = await prefect.all_runs(_planned_of(deployment_ids))
    # In this order: the runs of a change that comes in between are not among those that were read.
    deployments = await prefect.deployments_by_id(deployment_ids)
    current = {row.id for one in deployments.values() for row in one.schedules}
    now = utc_now()
    outdated = [run for run in runs if run.deployment_id in deployments and row_id(run) not in current]
    await prefect.delete_runs([run.id for run in outdated if _is_unbegun(run, now, due_too=False)])


def _planned_of(deployment_ids: Sequence[UUID], schedule_ids: Collection[UUID] = ()) -> RunFilter:
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


def _is_unbegun(run: FlowRun, now: datetime, due_too: bool) -> bool:
    is_due = run.expected_start_time is not None and run.expected_start_time <= now
    waits = run.state_type is not None and run.state_type.value == "SCHEDULED"
    return run.run_count == 0 and (not is_due or (due_too and waits))
