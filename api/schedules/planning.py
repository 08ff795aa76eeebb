"""Runs that Prefect has planned: delete those of before a change, and plan anew."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID
from weakref import WeakValueDictionary

from api.db.base import utc_now
from api.errors import SpineError
from api.prefect.client import Deployment, FlowRun, Prefect
from api.prefect.filters import Json, RunFilter
from api.schedules.deployments import is_enabled

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
    creator: Json = {"type_": ["SCHEDULE"]}
    if schedule_ids:
        creator["id_"] = [str(one) for one in schedule_ids]
    of_schedule = RunFilter(
        runs={
            "deployment_id": {"any_": [str(deployment_id)]},
            "state": {"type": {"any_": ["SCHEDULED", "PENDING"]}},
            "created_by": creator,
        }
    )
    now = utc_now()
    found = await prefect.list_runs(of_schedule, "EXPECTED_START_TIME_ASC")
    await prefect.delete_runs([run.id for run in found if _is_unbegun(run, now, due_too)])


def _is_unbegun(run: FlowRun, now: datetime, due_too: bool) -> bool:
    is_due = run.expected_start_time is not None and run.expected_start_time <= now
    waits = run.state_type is not None and run.state_type.value == "SCHEDULED"
    return run.run_count == 0 and (not is_due or (due_too and waits))
