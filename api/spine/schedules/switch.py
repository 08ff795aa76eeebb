"""Enable and disable a schedule, so that Prefect's UI shows it and the next `prefect deploy` keeps it.

A deployment with one schedule is switched at that schedule, as with the switch beside it in Prefect's UI: it is what
`prefect deploy` leaves alone where the file gives the schedule a slug. One with several is paused as a whole, so that
enabling it brings back those that were on, and only those.
"""

from spine.database import SessionFactory
from spine.errors import Conflict
from spine.prefect.client import Deployment, Prefect
from spine.schedules.deploy_guard.guard import note_switch
from spine.schedules.deployments import find_schedule, is_enabled
from spine.schedules.planning import delete_unbegun, one_change_at_a_time, plan_again
from spine.schemas import ActionResponse
from spine.tables.base import utc_now


async def enable_schedule(prefect: Prefect, sessions: SessionFactory, id_or_name: str) -> ActionResponse:
    """Let a schedule run, from its next due time on; nothing that was missed is made up for.

    Raises `NotFound`, and `Conflict` for one whose only timing was deleted in Prefect.
    """
    deployment = await find_schedule(prefect, id_or_name)
    async with one_change_at_a_time(deployment.id):
        await switch_on(prefect, sessions, await prefect.read_deployment(deployment.id))
    return _answer(deployment, "enabled")


async def disable_schedule(prefect: Prefect, sessions: SessionFactory, id_or_name: str) -> ActionResponse:
    """Stop a schedule; what was planned is deleted, what runs goes on. Raises `NotFound`."""
    deployment = await find_schedule(prefect, id_or_name)
    async with one_change_at_a_time(deployment.id):
        await switch_off(prefect, sessions, await prefect.read_deployment(deployment.id))
    return _answer(deployment, "disabled")


async def switch_on(prefect: Prefect, sessions: SessionFactory, deployment: Deployment) -> Deployment:
    """Enable, and give the deployment as it is then; harmless for a schedule that is enabled.

    Raises `Conflict` without any timing.
    """
    refuse_without_timing(deployment)
    was_enabled = is_enabled(deployment)
    now = utc_now()
    if not any(row.active for row in deployment.schedules):
        for row in deployment.schedules:
            await prefect.update_schedule(deployment.id, row.id, {"active": True})
    if deployment.paused:
        await prefect.resume_deployment(deployment.id)
    deployment = await prefect.read_deployment(deployment.id)
    if not was_enabled:
        await plan_again(prefect, deployment, now)
    await note_switch(sessions, deployment)
    return deployment


async def switch_off(prefect: Prefect, sessions: SessionFactory, deployment: Deployment) -> Deployment:
    """Disable, and give the deployment as it is then; harmless for a schedule that is disabled."""
    if is_enabled(deployment):
        # Pausing deletes what was planned, late runs too, which switching off a schedule would leave.
        await prefect.pause_deployment(deployment.id)
        if len(deployment.schedules) == 1:
            await prefect.update_schedule(deployment.id, deployment.schedules[0].id, {"active": False})
            await prefect.resume_deployment(deployment.id)
        await delete_unbegun(prefect, deployment.id, due_too=True)
    deployment = await prefect.read_deployment(deployment.id)
    await note_switch(sessions, deployment)
    return deployment


def refuse_without_timing(deployment: Deployment) -> None:
    """Raise `Conflict` for a schedule whose timing was deleted in Prefect."""
    if not deployment.schedules:
        raise Conflict(f"The schedule {deployment.name!r} has no timing; set cron_expression or interval_seconds.")


def _answer(deployment: Deployment, status: str) -> ActionResponse:
    return ActionResponse(
        id=str(deployment.id), status=status, message=f"The schedule {deployment.name!r} is {status}."
    )
