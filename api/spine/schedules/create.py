"""Make a schedule: a deployment of the target's flow that runs the same code as the workflow's own deployment."""

from spine.auth.callers import Caller
from spine.database import SessionFactory
from spine.errors import BadRequest, Conflict, FieldError, NotFound
from spine.prefect.client import Deployment, Prefect
from spine.prefect.filters import Json
from spine.schedules.code_sync import code_of, inherited_tags
from spine.schedules.deployments import CREATED_BY_LABEL, INHERITED_TAGS_LABEL, TARGET_TYPE_LABEL
from spine.schedules.names import check_name, claimed, refuse_taken
from spine.schedules.overlap import concurrency
from spine.schedules.planning import plan_again
from spine.schedules.schemas import ScheduleCreate
from spine.schedules.timing import make_timing
from spine.schemas import ActionResponse
from spine.tables.base import utc_now
from spine.workflows.deployments import find_workflow
from spine.workflows.labels import SCHEDULE_LABEL
from spine.workflows.trigger import refuse_invalid_parameters


async def create_schedule(
    prefect: Prefect, sessions: SessionFactory, caller: Caller, body: ScheduleCreate
) -> ActionResponse:
    """Make a schedule; its first runs are planned when this returns.

    Raises `BadRequest` naming each wrong value, and `Conflict` for a name that is taken.
    """
    check_name(body.name)
    now = utc_now()
    timing = await make_timing(body.cron_expression, body.interval_seconds, body.timezone, now)
    own = await _find_target(prefect, body.target_name)
    refuse_invalid_parameters(body.target_name, own, body.target_params or {}, "target_params")
    async with claimed(sessions, body.name, caller):
        await refuse_taken(prefect, body.name)
        made, is_new = await prefect.create_deployment(_deployment(own, body, timing, caller))
    if not is_new:
        # It was deployed within the milliseconds since we looked, and Prefect has no creation that never overwrites.
        raise Conflict(f"A deployment named {body.name!r} was deployed at the same moment; deploy it once more.")
    await plan_again(prefect, made, now)
    return ActionResponse(
        id=str(made.id), status="created", message=f"The schedule {body.name!r} of {body.target_name!r} was made."
    )


async def _find_target(prefect: Prefect, target_name: str) -> Deployment:
    try:
        own = await find_workflow(prefect, target_name)
    except (NotFound, Conflict) as reason:
        raise _no_target(reason.detail) from None
    if own.work_pool_name is None:
        raise _no_target(
            f"The workflow {target_name!r} is served by a process of its own, which runs no other deployment; "
            "deploy it to a work pool to schedule it here."
        )
    return own


def _no_target(sentence: str) -> BadRequest:
    return BadRequest(sentence, [FieldError(("body", "target_name"), sentence)])


def _deployment(own: Deployment, body: ScheduleCreate, timing: Json, caller: Caller) -> Json:
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
