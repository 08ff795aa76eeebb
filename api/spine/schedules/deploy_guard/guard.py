"""What an operator disabled stays disabled after `prefect deploy`.

`prefect deploy` resumes each deployment that it deploys, and replaces schedules without a slug by new, active ones.
Deployments that are disabled, wholly or in part, are therefore recorded as they were when last read. When one is
enabled again, `spine.schedules.deploy_guard.verdicts` decides from what has changed whether an operator or a deploy did
that. After a deploy it is disabled again, except for schedules that the file declares `active: true`.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from spine.audit.trail import changing
from spine.database import SessionFactory, reading, transaction
from spine.errors import SpineError, Unavailable
from spine.oddities import ODDITIES
from spine.prefect.around import PrefectUnreadable
from spine.prefect.client import Deployment, Prefect
from spine.schedules.deploy_guard.declared import declared_active
from spine.schedules.deploy_guard.verdicts import Verdict, judge, rows_of, was_deployed
from spine.schedules.deployments import is_enabled
from spine.schedules.planned_runs import SCHEDULER_LAG, change_lock, delete_planned, replan
from spine.tables.base import utc_now
from spine.tables.schedules import DisabledDeployment

# Prefect stores an event up to five seconds after it occurred, and later under load.
SECONDS_FOR_EVENTS_TO_ARRIVE = 12.0

log = structlog.get_logger("spine.schedules")


class DeployGuard:
    """Disables again what a deploy has enabled; make one for each process."""

    def __init__(self) -> None:
        # When a deployment that had been paused was first seen resumed.
        self._resumed_at: dict[UUID, float] = {}

    async def check(self, prefect: Prefect, sessions: SessionFactory, deployments: Sequence[Deployment]) -> None:
        """Record the deployments that are disabled, and disable again those that a deploy has enabled.

        A deployment that cannot be disabled is logged and does not stop the others. Raises `Unavailable`.
        """
        records = await _read(sessions, deployments)
        for deployment in deployments:
            record = records.get(deployment.id)
            if record is not None and record.unreadable_fields():
                # The row has named itself. What was disabled is not known, so nothing is.
                continue
            try:
                await self._check_one(prefect, sessions, record, deployment)
            except PrefectUnreadable as unreadable:
                ODDITIES.found("deployment", deployment.id, unreadable.detail)
            except Unavailable:
                raise
            except SpineError as refused:
                log.warning("disable_after_deploy_failed", deployment=deployment.name, reason=refused.detail)
            except Exception as error:
                # Its record or its schedules hold something unknown. The others do not depend on it.
                ODDITIES.found(
                    "deployment", deployment.id, f"it cannot be checked after a deploy ({type(error).__name__})"
                )

    async def _check_one(
        self, prefect: Prefect, sessions: SessionFactory, record: DisabledDeployment | None, deployment: Deployment
    ) -> None:
        if record is None:
            if has_disabled_schedule(deployment):
                await record_state(sessions, deployment)
            return
        verdict = await self._judge(prefect, record, deployment)
        if verdict is None:
            return
        if verdict:
            disabled = await self._disable_again(prefect, sessions, deployment.id)
            if disabled is None:
                return
            deployment = disabled
        self._resumed_at.pop(deployment.id, None)
        if not _is_current(record, deployment):
            await record_state(sessions, deployment)
        elif utc_now() - record.seen_at < SCHEDULER_LAG:
            await _delete_planned_of_disabled(prefect, deployment)

    async def _disable_again(
        self, prefect: Prefect, sessions: SessionFactory, deployment_id: UUID
    ) -> Deployment | None:
        """Apply the verdict and return the deployment as it is afterwards.

        None if it was just being changed over the API, which takes several requests and can look like a deploy.
        """
        async with change_lock(deployment_id):
            deployment = await prefect.read_deployment(deployment_id)
            record = (await _read(sessions, [deployment])).get(deployment_id)
            verdict = await self._judge(prefect, record, deployment) if record else None
            if not verdict:
                return None
            before = {"enabled": is_enabled(deployment)}
            async with changing("disabled", "schedule", deployment_id, deployment.name, before=before) as change:
                await _disable(prefect, deployment, verdict)
                change.after = {
                    "paused": verdict.pause,
                    "deactivated": [str(row.id) for row in verdict.deactivate],
                    "reason": "A deploy had enabled what an operator had disabled.",
                }
            log.info("disabled_after_deploy", deployment=deployment.name, id=str(deployment_id))
            return await prefect.read_deployment(deployment_id)

    async def _judge(self, prefect: Prefect, record: DisabledDeployment, deployment: Deployment) -> Verdict | None:
        """What to disable again; None while that cannot be decided yet."""
        by_deploy = await self._was_resumed_by_deploy(prefect, record, deployment)
        if by_deploy is None:
            return None
        if not by_deploy and not was_deployed(record, deployment):
            return Verdict()
        declared = await asyncio.to_thread(declared_active, deployment)
        return judge(record, deployment, declared, resumed_by_deploy=by_deploy)

    async def _was_resumed_by_deploy(
        self, prefect: Prefect, record: DisabledDeployment, deployment: Deployment
    ) -> bool | None:
        if not record.paused or deployment.paused:
            return False
        if was_deployed(record, deployment) and deployment.id not in self._resumed_at:
            return True
        # The schedules showed no deploy when it was first seen resumed: a deploy since then has not resumed it.
        changes = await prefect.deployment_changes(deployment.id, record.deployment_updated_at)
        if any(change.get("paused", {}).get("to") is False for change in changes):
            return True
        resumed_at = self._resumed_at.setdefault(deployment.id, time.monotonic())
        return False if time.monotonic() - resumed_at >= SECONDS_FOR_EVENTS_TO_ARRIVE else None


def has_disabled_schedule(deployment: Deployment) -> bool:
    """Whether a deployment is paused or at least one of its schedules is inactive."""
    return bool(deployment.schedules) and (
        _is_paused(deployment) or any(not row.active for row in deployment.schedules)
    )


def _is_paused(deployment: Deployment) -> bool:
    # A deployment without a work pool is served by a process, which pauses it on exit and resumes it on start.
    return deployment.paused and deployment.work_pool_name is not None


async def record_state(sessions: SessionFactory, deployment: Deployment) -> None:
    """Replace the record of a deployment unless that is newer; an enabled deployment has no record.

    Call this right after the API has changed a deployment, with the deployment as read afterwards.
    """
    older = (DisabledDeployment.deployment_id == deployment.id) & (
        DisabledDeployment.deployment_updated_at <= deployment.updated
    )
    try:
        async with transaction(sessions) as session:
            await session.execute(delete(DisabledDeployment).where(older))
            if has_disabled_schedule(deployment):
                session.add(
                    DisabledDeployment(
                        deployment_id=deployment.id,
                        paused=_is_paused(deployment),
                        schedules=rows_of(deployment),
                        deployment_updated_at=deployment.updated,
                    )
                )
    except IntegrityError:
        # Another process has just recorded what it read; the next check compares with that.
        log.debug("disabled_deployment_recorded_elsewhere", deployment=deployment.name)


async def delete_records_except(sessions: SessionFactory, deployments: Sequence[Deployment]) -> None:
    """Delete the records of deployments that no longer exist; `deployments` are all that exist."""
    existing = {deployment.id for deployment in deployments}
    async with transaction(sessions) as session:
        gone = set(await session.scalars(select(DisabledDeployment.deployment_id))) - existing
        for deployment_id in gone:
            await session.execute(delete(DisabledDeployment).where(DisabledDeployment.deployment_id == deployment_id))


async def _disable(prefect: Prefect, deployment: Deployment, verdict: Verdict) -> None:
    """Disable what the verdict says and delete its planned runs; those of other schedules are planned again."""
    since = utc_now()
    if verdict.pause:
        await prefect.pause_deployment(deployment.id)
    for row in verdict.deactivate:
        await prefect.update_schedule(deployment.id, row, {"active": False})
    deployment = await prefect.read_deployment(deployment.id)
    await _delete_planned_of_disabled(prefect, deployment)
    # Deactivating one schedule also deletes the planned runs of the others.
    await replan(prefect, deployment, since)


async def _delete_planned_of_disabled(prefect: Prefect, deployment: Deployment) -> None:
    """Delete the planned runs of schedules that are disabled, which should have none."""
    disabled = [row.id for row in deployment.schedules if deployment.paused or not row.active]
    if disabled:
        await delete_planned(prefect, deployment.id, due_too=True, schedule_ids=disabled)


async def _read(sessions: SessionFactory, deployments: Sequence[Deployment]) -> dict[UUID, DisabledDeployment]:
    # There are few records, while the deployments may be more than one statement takes.
    wanted = select(DisabledDeployment)
    if len(deployments) <= 500:
        wanted = wanted.where(DisabledDeployment.deployment_id.in_([deployment.id for deployment in deployments]))
    async with reading(sessions) as session:
        return {record.deployment_id: record for record in await session.scalars(wanted)}


def _is_current(record: DisabledDeployment, deployment: Deployment) -> bool:
    """Whether a record describes a deployment as it is now."""
    return (
        has_disabled_schedule(deployment)
        and record.paused == _is_paused(deployment)
        and record.deployment_updated_at == deployment.updated
        and sorted(record.schedules, key=_id) == sorted(rows_of(deployment), key=_id)
    )


def _id(row: dict[str, Any]) -> str:
    return str(row["id"])
