"""Change a schedule with one request, which Prefect makes one transaction, so that concurrent changes do not mix."""

from spine.audit.trail import changing
from spine.auth.domains import Domains
from spine.database import SessionFactory
from spine.prefect.client import Deployment, Prefect
from spine.prefect.filters import Json
from spine.schedules.audit_state import settings_of
from spine.schedules.changes import changes_for
from spine.schedules.commands import refuse_without_timing, switch_off, switch_on
from spine.schedules.deploy_guard.guard import record_state
from spine.schedules.deployments import find_schedule
from spine.schedules.listing import ScheduleListing
from spine.schedules.planned_runs import change_lock, delete_outdated, delete_planned, replan
from spine.schedules.queries import present_one
from spine.schedules.schemas import ScheduleResponse, ScheduleUpdate
from spine.tables.base import utc_now


async def update_schedule(
    prefect: Prefect,
    sessions: SessionFactory,
    listing: ScheduleListing,
    domains: Domains,
    id_or_name: str,
    body: ScheduleUpdate,
) -> ScheduleResponse:
    """Change the fields that were sent; planned runs are planned again if anything but `enabled` changed.

    Raises `NotFound`, `BadRequest` with each invalid value, `Conflict` for the timing of a deployment with several,
    for parameters that each of these sets itself and for a limit that other deployments share, and `Forbidden` for tags
    of another domain and for parameters of a workflow of another domain.
    """
    found = await find_schedule(prefect, domains, id_or_name)
    if not body.model_fields_set:
        return await present_one(prefect, sessions, listing, found)
    async with (
        changing("updated", "schedule", found.id, found.name, before=settings_of(found)) as change,
        change_lock(found.id),
    ):
        deployment = await _change(prefect, sessions, domains, await prefect.read_deployment(found.id), body)
        change.after = settings_of(deployment)
    return await present_one(prefect, sessions, listing, deployment)


async def _change(
    prefect: Prefect, sessions: SessionFactory, domains: Domains, deployment: Deployment, body: ScheduleUpdate
) -> Deployment:
    """Make the change and return the deployment as it is afterwards."""
    # The values as sent; `model_dump` would turn the enumerations into strings.
    sent = {name: getattr(body, name) for name in body.model_fields_set}
    now = utc_now()
    changes = await changes_for(prefect, domains, deployment, sent, now)
    if body.enabled and "schedules" not in changes:
        # Check this before anything is changed.
        refuse_without_timing(deployment)
    if changes:
        await _send(prefect, deployment, changes)
        if changes.keys() & {"schedules", "parameters"}:
            await delete_planned(prefect, deployment.id, due_too=False)
        deployment = await prefect.read_deployment(deployment.id)
        # A changed schedule looks like one that was deployed again.
        await record_state(sessions, deployment)
        if body.enabled is not False:
            await replan(prefect, deployment, now)
        if changes.keys() & {"schedules", "parameters"}:
            await delete_outdated(prefect, [deployment.id])
    if body.enabled is not None:
        switch = switch_on if body.enabled else switch_off
        deployment = await switch(prefect, sessions, deployment)
    return deployment


async def _send(prefect: Prefect, deployment: Deployment, changes: Json) -> None:
    await prefect.update_deployment(deployment.id, changes)
    most = deployment.schedules[0].max_scheduled_runs if "schedules" in changes and deployment.schedules else None
    if most is not None:
        # Prefect replaces a schedule without a slug by a new one, and that loses its limit of runs.
        (row,) = (await prefect.read_deployment(deployment.id)).schedules
        await prefect.update_schedule(deployment.id, row, {"max_scheduled_runs": most})
