"""Create, delete, enable, disable and run a schedule; `update` changes one.

A created schedule is a deployment of the target's flow that runs the same code as the workflow's own deployment.

Enabling and disabling are stored where Prefect's UI shows them and the next `prefect deploy` keeps them. For a
deployment with one schedule that is the schedule itself, the switch beside it in Prefect's UI: `prefect deploy` leaves
it alone if the file gives the schedule a slug. A deployment with several schedules is paused as a whole, so that
enabling it restores exactly those that were on.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from spine.audit.trail import changing
from spine.auth.callers import Caller
from spine.auth.domains import Domains
from spine.database import SessionFactory
from spine.errors import BadRequest, Conflict, FieldError, NotFound
from spine.names import domains_in
from spine.prefect.around import named
from spine.prefect.client import Deployment, Prefect
from spine.prefect.filters import Json
from spine.prefect.parameters import problems_of_defaults
from spine.schedules.audit_state import settings_of
from spine.schedules.code_sync import code_of, inherited_tags
from spine.schedules.deploy_guard.guard import record_state
from spine.schedules.deployments import (
    CREATED_BY_LABEL,
    INHERITED_TAGS_LABEL,
    TARGET_TYPE_LABEL,
    concurrency,
    find_schedule,
    is_enabled,
    shared_limit_of,
    workflow_of,
)
from spine.schedules.listing import ScheduleListing
from spine.schedules.names import check_name, claimed, refuse_taken
from spine.schedules.planned_runs import change_lock, delete_planned, replan
from spine.schedules.schemas import ScheduleCreate
from spine.schedules.timing import make_timing
from spine.schemas import ActionResponse
from spine.tables.base import utc_now
from spine.workflows.deployments import find_workflow
from spine.workflows.deployments import is_schedule as made_over_api
from spine.workflows.labels import API_TAG, CALLER_LABEL, SCHEDULE_LABEL
from spine.workflows.schemas import TriggerStatus, WorkflowTriggerResponse
from spine.workflows.trigger import refuse_invalid_parameters


async def create_schedule(
    prefect: Prefect, sessions: SessionFactory, caller: Caller, body: ScheduleCreate, target_domains: Domains
) -> ActionResponse:
    """Create a schedule of a workflow that `target_domains` allow; its first runs are planned when this returns.

    Raises `BadRequest` with each invalid value, `Conflict` for a name that is taken, and `Forbidden` for tags of
    another domain.
    """
    check_name(body.name)
    refuse_other_domains(caller.domains, body.tags or [])
    now = utc_now()
    timing = await make_timing(body.cron_expression, body.interval_seconds, body.timezone, now)
    own = await _find_target(prefect, target_domains, body.target_name)
    refuse_invalid_parameters(body.target_name, own, body.target_params or {}, "target_params")
    async with changing("created", "schedule", body.name, body.name) as change:
        async with claimed(sessions, body.name, caller):
            await refuse_taken(prefect, body.name)
            made, is_new = await prefect.create_deployment(_deployment(own, body, timing, caller))
        change.resource_id, change.after = str(made.id), settings_of(made)
        if is_new:
            await replan(prefect, made, now)
    if not is_new:
        # It was deployed in the milliseconds since the check, and Prefect has no creation that never overwrites.
        raise Conflict(
            f"A deployment named {body.name!r} was deployed at the same time and has been overwritten; deploy it again."
        )
    return ActionResponse(
        id=str(made.id),
        status="created",
        message=f"The schedule {body.name!r} of the workflow {body.target_name!r} was created.",
    )


async def delete_schedule(
    prefect: Prefect, listing: ScheduleListing, domains: Domains, id_or_name: str
) -> ActionResponse:
    """Stop all future runs; runs in progress and the history stay. Raises `NotFound`.

    A deployment that CI made is what its workflow runs on, so it stays and only loses its schedules. The next
    `prefect deploy` creates them again if they are still in the file.
    """
    found = await find_schedule(prefect, domains, id_or_name)
    change = changing("deleted", "schedule", found.id, found.name, before=settings_of(found))
    async with change, change_lock(found.id):
        # First, while the deployment still exists, so that a request that fails here can be repeated.
        await delete_planned(prefect, found.id, due_too=True)
        message = await _delete(prefect, listing, found)
        await delete_planned(prefect, found.id, due_too=True)
    return ActionResponse(id=str(found.id), status="deleted", message=message)


async def enable_schedule(
    prefect: Prefect, sessions: SessionFactory, domains: Domains, id_or_name: str
) -> ActionResponse:
    """Enable a schedule from its next due time on; missed runs are not made up.

    Raises `NotFound`, and `Conflict` if its only timing was deleted in Prefect.
    """
    deployment = await find_schedule(prefect, domains, id_or_name)
    async with _switching("enabled", deployment), change_lock(deployment.id):
        await switch_on(prefect, sessions, await prefect.read_deployment(deployment.id))
    return _switched(deployment, "enabled")


async def disable_schedule(
    prefect: Prefect, sessions: SessionFactory, domains: Domains, id_or_name: str
) -> ActionResponse:
    """Disable a schedule: planned runs are deleted, runs in progress continue. Raises `NotFound`."""
    deployment = await find_schedule(prefect, domains, id_or_name)
    async with _switching("disabled", deployment), change_lock(deployment.id):
        await switch_off(prefect, sessions, await prefect.read_deployment(deployment.id))
    return _switched(deployment, "disabled")


async def run_now(prefect: Prefect, caller: Caller, id_or_name: str, operation_id: str) -> WorkflowTriggerResponse:
    """Start a run with the schedule's parameters, even if it is disabled; repeating an `operation_id` is safe.

    Raises `NotFound`, and `Conflict` if the workflow's code no longer accepts the schedule's parameters.
    """
    deployment = await find_schedule(prefect, caller.domains, id_or_name)
    # Read before the run is created: once Prefect has created it, no further call may fail.
    workflow = await workflow_of(prefect, deployment)
    # With several timings, each may have its own parameters; then those of the deployment apply.
    parameters = deployment.schedules[0].parameters if len(deployment.schedules) == 1 else {}
    if problems := problems_of_defaults({**deployment.parameters, **parameters}, {}):
        raise Conflict(f"The schedule {deployment.name!r} cannot run: {named(problems)}.")
    key = f"spine-{operation_id}"
    async with changing("started", "run", key, operation_id=operation_id) as change:
        try:
            run = await prefect.create_run(
                deployment.id,
                parameters=parameters,
                tags=[API_TAG],
                labels={CALLER_LABEL: caller.name, SCHEDULE_LABEL: deployment.name},
                idempotency_key=key,
            )
        except BadRequest as reason:
            raise Conflict(f"The schedule {deployment.name!r} cannot run: {reason.detail}") from None
        change.resource_id, change.resource_name = str(run.id), run.name
        change.after = {"workflow": workflow, "schedule": deployment.name, "parameters": parameters}
    return WorkflowTriggerResponse(
        run_id=run.id,
        workflow_name=workflow,
        status=TriggerStatus.PENDING,
        message=f"Run {run.name!r} of the schedule {deployment.name!r} was created and waits for a worker.",
    )


async def switch_on(prefect: Prefect, sessions: SessionFactory, deployment: Deployment) -> Deployment:
    """Enable a deployment, which may be enabled already, and return it as it is afterwards.

    Raises `Conflict` if it has no timing.
    """
    refuse_without_timing(deployment)
    was_enabled = is_enabled(deployment)
    now = utc_now()
    if not any(row.active for row in deployment.schedules):
        for row in deployment.schedules:
            await prefect.update_schedule(deployment.id, row, {"active": True})
    if deployment.paused:
        await prefect.resume_deployment(deployment.id)
    deployment = await prefect.read_deployment(deployment.id)
    if not was_enabled:
        await replan(prefect, deployment, now)
    await record_state(sessions, deployment)
    return deployment


async def switch_off(prefect: Prefect, sessions: SessionFactory, deployment: Deployment) -> Deployment:
    """Disable a deployment, which may be disabled already, and return it as it is afterwards."""
    if is_enabled(deployment):
        # Pausing deletes planned runs including late ones, which deactivating a schedule would leave.
        await prefect.pause_deployment(deployment.id)
        if len(deployment.schedules) == 1:
            await prefect.update_schedule(deployment.id, deployment.schedules[0], {"active": False})
            await prefect.resume_deployment(deployment.id)
        await delete_planned(prefect, deployment.id, due_too=True)
    deployment = await prefect.read_deployment(deployment.id)
    await record_state(sessions, deployment)
    return deployment


def refuse_without_timing(deployment: Deployment) -> None:
    """Raise `Conflict` for a schedule whose timing was deleted in Prefect."""
    if not deployment.schedules:
        raise Conflict(f"The schedule {deployment.name!r} has no timing; set cron_expression or interval_seconds.")


async def _find_target(prefect: Prefect, domains: Domains, target_name: str) -> Deployment:
    try:
        own = await find_workflow(prefect, domains, target_name)
    except (NotFound, Conflict) as reason:
        raise _invalid_target(reason.detail) from None
    if own.work_pool_name is None:
        raise _invalid_target(
            f"The workflow {target_name!r} is served by its own process, which runs no other deployment; "
            "deploy it to a work pool to schedule it here."
        )
    return own


def _invalid_target(sentence: str) -> BadRequest:
    return BadRequest(sentence, [FieldError(("body", "target_name"), sentence)])


def _deployment(own: Deployment, body: ScheduleCreate, timing: Json, caller: Caller) -> Json:
    """The body of Prefect's request that creates the schedule's deployment."""
    given = list(dict.fromkeys(body.tags or []))
    inherited = [tag for tag in inherited_tags(own) if tag not in given]
    labels = {
        SCHEDULE_LABEL: body.name,
        TARGET_TYPE_LABEL: body.target_type.value,
        CREATED_BY_LABEL: caller.name,
        INHERITED_TAGS_LABEL: "\n".join(inherited),
    }
    return {
        **code_of(own),
        "name": body.name,
        "flow_id": str(own.flow_id),
        "description": body.description,
        "parameters": {**own.parameters, **(body.target_params or {})},
        "tags": given + inherited,
        "labels": labels,
        # Without a slug: Prefect's UI would show it in place of the timing.
        "schedules": [{"schedule": timing, "active": body.enabled}],
        **concurrency(body.max_instances, body.overlap_policy),
    }


async def _delete(prefect: Prefect, listing: ScheduleListing, deployment: Deployment) -> str:
    if made_over_api(deployment):
        if shared_limit_of(deployment) is not None:
            # Prefect would delete the limit of all others with the deployment.
            await prefect.update_deployment(deployment.id, {"global_concurrency_limit_id": None})
        await prefect.delete_deployment(deployment.id)
        return f"The schedule {deployment.name!r} was deleted."
    for row in deployment.schedules:
        await prefect.delete_schedule(deployment.id, row.id)
    listing.schedule_removed(deployment.id)
    return f"The schedule of the deployment {deployment.name!r} was deleted; the deployment remains."


def refuse_other_domains(domains: Domains, tags: Iterable[str], present: Iterable[str] = ()) -> None:
    """Raise `Forbidden` if a credential may not give these tags to a schedule that has the tags `present`."""
    for domain in sorted(domains_in(tags) - domains_in(present)):
        domains.require(domain, "the schedule")


@asynccontextmanager
async def _switching(status: str, deployment: Deployment) -> AsyncIterator[None]:
    before = {"enabled": is_enabled(deployment)}
    async with changing(status, "schedule", deployment.id, deployment.name, before=before) as change:
        yield
        change.after = {"enabled": status == "enabled"}


def _switched(deployment: Deployment, status: str) -> ActionResponse:
    return ActionResponse(
        id=str(deployment.id), status=status, message=f"The schedule {deployment.name!r} is {status}."
    )
