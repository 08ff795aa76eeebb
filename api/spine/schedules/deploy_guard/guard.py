"""What an operator switched off stays off over `prefect deploy`.

`prefect deploy` resumes each deployment that it names, and makes schedules without a slug anew, switched on. So
deployments that are off, wholly or in part, are remembered as they were seen, and when one is on again,
`spine.schedules.deploy_guard.verdicts` tells from what changed whether that was an operator or a deploy. After a
deploy it is switched off again, but for what the file declares `active: true`.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from spine.database import SessionFactory, database_errors, reading, transaction
from spine.errors import SpineError, Unavailable
from spine.prefect.client import Deployment, Prefect
from spine.schedules.deploy_guard.declared import declared_active
from spine.schedules.deploy_guard.verdicts import Verdict, deploy_shows, judge, rows_of
from spine.schedules.planning import TIME_FOR_THE_SCHEDULER, delete_unbegun, one_change_at_a_time, plan_again
from spine.tables.base import utc_now
from spine.tables.schedules import ScheduleHold

# Prefect stores an event up to five seconds after it occurred, and later under load.
SECONDS_FOR_EVENTS_TO_ARRIVE = 12.0

log = structlog.get_logger("spine.schedules")


async def note_switch(sessions: SessionFactory, deployment: Deployment) -> None:
    """Remember at once how a deployment stands after the API has switched or changed it; it must be read anew."""
    await _remember(sessions, deployment)


class Holds:
    """Keeps what is off as it is; make one for each process."""

    def __init__(self) -> None:
        # When a deployment that was paused was first met resumed.
        self._resumed_at: dict[UUID, float] = {}

    async def keep(self, prefect: Prefect, sessions: SessionFactory, deployments: Sequence[Deployment]) -> None:
        """Look at deployments: remember those that are off, and switch off again what a deploy switched on.

        One that cannot be switched is logged and does not stop the others. Raises `Unavailable`.
        """
        holds = await _read(sessions, deployments)
        for deployment in deployments:
            try:
                await self._keep_one(prefect, sessions, holds.get(deployment.id), deployment)
            except Unavailable:
                raise
            except SpineError as reason:
                log.warning("schedule_not_kept_off", deployment=deployment.name, reason=reason.detail)

    async def _keep_one(
        self, prefect: Prefect, sessions: SessionFactory, hold: ScheduleHold | None, deployment: Deployment
    ) -> None:
        if hold is None:
            if is_off(deployment):
                await _remember(sessions, deployment)
            return
        verdict = await self._judge(prefect, hold, deployment)
        if verdict is None:
            return
        if verdict:
            again = await self._switch_off_again(prefect, sessions, deployment.id)
            if again is None:
                return
            deployment = again
        self._resumed_at.pop(deployment.id, None)
        if not _says(hold, deployment):
            await _remember(sessions, deployment)
        elif utc_now() - hold.seen_at < TIME_FOR_THE_SCHEDULER:
            await _delete_planned(prefect, deployment)

    async def _switch_off_again(
        self, prefect: Prefect, sessions: SessionFactory, deployment_id: UUID
    ) -> Deployment | None:
        """Do what the verdict says, and give the deployment as it is then.

        None when someone was just changing it over the API: that takes several requests, which can look like a deploy.
        """
        async with one_change_at_a_time(deployment_id):
            deployment = await prefect.read_deployment(deployment_id)
            hold = (await _read(sessions, [deployment])).get(deployment_id)
            verdict = await self._judge(prefect, hold, deployment) if hold else None
            if not verdict:
                return None
            await _switch_off(prefect, deployment, verdict)
            log.info("schedule_kept_off", deployment=deployment.name, id=str(deployment_id))
            return await prefect.read_deployment(deployment_id)

    async def _judge(self, prefect: Prefect, hold: ScheduleHold, deployment: Deployment) -> Verdict | None:
        """What is to be switched off again; None while that cannot be told yet."""
        by_deploy = await self._was_resumed_by_deploy(prefect, hold, deployment)
        if by_deploy is None:
            return None
        if not by_deploy and not deploy_shows(hold, deployment):
            return Verdict()
        declared = await asyncio.to_thread(declared_active, deployment)
        return judge(hold, deployment, declared, resumed_by_deploy=by_deploy)

    async def _was_resumed_by_deploy(self, prefect: Prefect, hold: ScheduleHold, deployment: Deployment) -> bool | None:
        if not hold.paused or deployment.paused:
            return False
        if deploy_shows(hold, deployment) and deployment.id not in self._resumed_at:
            return True
        # The schedules told nothing when it was first met resumed: a deploy since then did not resume it.
        changes = await prefect.deployment_changes(deployment.id, hold.deployment_updated_at)
        if any(change.get("paused", {}).get("to") is False for change in changes):
            return True
        resumed_at = self._resumed_at.setdefault(deployment.id, time.monotonic())
        return False if time.monotonic() - resumed_at >= SECONDS_FOR_EVENTS_TO_ARRIVE else None


def is_off(deployment: Deployment) -> bool:
    """Whether someone switched off a deployment or a schedule of it."""
    return bool(deployment.schedules) and (
        _is_paused(deployment) or any(not row.active for row in deployment.schedules)
    )


def _is_paused(deployment: Deployment) -> bool:
    # One without a work pool is served by a process, which itself pauses it when it ends and resumes it when it starts.
    return deployment.paused and deployment.work_pool_name is not None


async def forget_all_but(sessions: SessionFactory, deployments: Sequence[Deployment]) -> None:
    """Forget deployments that are gone; these are all that there are."""
    existing = {deployment.id for deployment in deployments}
    async with transaction(sessions) as session:
        gone = set(await session.scalars(select(ScheduleHold.deployment_id))) - existing
        for deployment_id in gone:
            await session.execute(delete(ScheduleHold).where(ScheduleHold.deployment_id == deployment_id))


async def _switch_off(prefect: Prefect, deployment: Deployment, verdict: Verdict) -> None:
    """Switch off what the verdict says and delete its planned runs; those of the others are planned anew."""
    since = utc_now()
    if verdict.pause:
        await prefect.pause_deployment(deployment.id)
    for row in verdict.off:
        await prefect.update_schedule(deployment.id, row.id, {"active": False})
    deployment = await prefect.read_deployment(deployment.id)
    await _delete_planned(prefect, deployment)
    # Switching off one schedule also deletes what was planned for the others.
    await plan_again(prefect, deployment, since)


async def _delete_planned(prefect: Prefect, deployment: Deployment) -> None:
    """Delete the runs of schedules that are off, which should have none."""
    off = [row.id for row in deployment.schedules if deployment.paused or not row.active]
    if off:
        await delete_unbegun(prefect, deployment.id, due_too=True, schedule_ids=off)


async def _read(sessions: SessionFactory, deployments: Sequence[Deployment]) -> dict[UUID, ScheduleHold]:
    # Few are held, while the deployments may be more than one statement takes.
    wanted = select(ScheduleHold)
    if len(deployments) <= 500:
        wanted = wanted.where(ScheduleHold.deployment_id.in_([deployment.id for deployment in deployments]))
    async with reading(sessions) as session:
        return {hold.deployment_id: hold for hold in await session.scalars(wanted)}


def _says(hold: ScheduleHold, deployment: Deployment) -> bool:
    """Whether a hold describes a deployment as it stands."""
    return (
        is_off(deployment)
        and hold.paused == _is_paused(deployment)
        and hold.deployment_updated_at == deployment.updated
        and sorted(hold.schedules, key=_id) == sorted(rows_of(deployment), key=_id)
    )


def _id(row: dict[str, Any]) -> str:
    return str(row["id"])


async def _remember(sessions: SessionFactory, deployment: Deployment) -> None:
    """Replace what is known of a deployment, unless something newer is; nothing is kept of one that is on."""
    known = (ScheduleHold.deployment_id == deployment.id) & (ScheduleHold.deployment_updated_at <= deployment.updated)
    with database_errors():
        try:
            async with sessions.begin() as session:
                await session.execute(delete(ScheduleHold).where(known))
                if is_off(deployment):
                    session.add(
                        ScheduleHold(
                            deployment_id=deployment.id,
                            paused=_is_paused(deployment),
                            schedules=rows_of(deployment),
                            deployment_updated_at=deployment.updated,
                        )
                    )
        except IntegrityError:
            # Another process has just written what it saw; the next look compares with that.
            log.debug("schedule_hold_written_elsewhere", deployment=deployment.name)
