"""Keep the schedules that the API made on the code of their workflow.

`prefect deploy` changes the deployments that its file names and no others, so a schedule's deployment would run the old
entrypoint, image and pull steps for ever. Whenever the workflow's own deployment has changed, its schedules get what
differs, and their planned runs are planned anew; what is the schedule's own (name, parameters, timing, state,
description, concurrency) stays.
"""

from collections.abc import Collection, Iterable

import structlog

from spine.errors import BadRequest, SpineError
from spine.prefect.client import Deployment, Prefect
from spine.prefect.filters import Json
from spine.prefect.parameters import prefect_accepts
from spine.schedules.deployments import INHERITED_TAGS_LABEL
from spine.schedules.planning import one_change_at_a_time, plan_again
from spine.tables.base import utc_now

# Tags by which runs are found and alerts are sent belong to the workflow, and so to its schedules.
INHERITED_PREFIXES = ("domain:", "severity:", "alert:")

# What Prefect stores for a flow without parameters, and for no schema at all.
NO_PARAMETERS: Json = {"type": "object", "properties": {}}

log = structlog.get_logger("spine.schedules")


def code_of(own: Deployment) -> Json:
    """What of a deployment says which code runs where, in the words of Prefect's API."""
    return {
        "entrypoint": own.entrypoint,
        "path": own.path,
        "pull_steps": own.pull_steps,
        "job_variables": own.job_variables or {},
        "work_pool_name": own.work_pool_name,
        # For a name without a pool Prefect would make a queue.
        "work_queue_name": own.work_queue_name if own.work_pool_name else None,
        "parameter_openapi_schema": own.parameter_openapi_schema or NO_PARAMETERS,
        "enforce_parameter_schema": own.enforce_parameter_schema,
        "version": own.version,
        "storage_document_id": own.storage_document_id and str(own.storage_document_id),
        "infrastructure_document_id": own.infrastructure_document_id and str(own.infrastructure_document_id),
    }


def inherited_tags(own: Deployment) -> list[str]:
    """The tags that a workflow's schedules have from it."""
    return [tag for tag in own.tags if tag.startswith(INHERITED_PREFIXES)]


async def follow(
    prefect: Prefect, own: Deployment, schedules: Iterable[Deployment], tags_before: Collection[str] = ()
) -> None:
    """Bring the schedules of a workflow in step with its own deployment.

    `tags_before` are the tags that the workflow had before, as far as they are known. A schedule that cannot be changed
    is logged and does not stop the others.
    """
    for schedule in schedules:
        changes = changes_to_follow(own, schedule, tags_before)
        if not changes:
            continue
        try:
            await _change(prefect, schedule, changes)
        except SpineError as reason:
            log.warning("schedule_not_followed", schedule=schedule.name, id=str(schedule.id), reason=reason.detail)
        else:
            log.info("schedule_followed", schedule=schedule.name, id=str(schedule.id), changed=sorted(changes))


def changes_to_follow(own: Deployment, schedule: Deployment, tags_before: Collection[str] = ()) -> Json:
    """What of a schedule differs from what its workflow gives it, in the words of Prefect's API; empty in step."""
    wanted, present = code_of(own), code_of(schedule)
    if wanted != present and not prefect_accepts(wanted["parameter_openapi_schema"], schedule.parameters):
        # Prefect would refuse the new schema. So the schedule follows all the same, and its runs fail, which shows.
        wanted["enforce_parameter_schema"] = False
    changes = {name: value for name, value in wanted.items() if value != present[name]}
    if {"work_pool_name", "work_queue_name"} & changes.keys():
        # Prefect looks the queue up in the pool that comes with it.
        changes |= {name: wanted[name] for name in ("work_pool_name", "work_queue_name")}
    tags = _tags(own, schedule, tags_before)
    return changes if tags == schedule.tags else {**changes, "tags": tags}


def _tags(own: Deployment, schedule: Deployment, tags_before: Collection[str]) -> list[str]:
    now = inherited_tags(own)
    at_first = str(schedule.labels.get(INHERITED_TAGS_LABEL, "")).split("\n")
    before = {tag for tag in tags_before if tag.startswith(INHERITED_PREFIXES)}
    stale = {*at_first, *before} - set(now)
    kept = [tag for tag in schedule.tags if tag not in stale]
    return kept + [tag for tag in now if tag not in kept]


async def _change(prefect: Prefect, schedule: Deployment, changes: Json) -> None:
    async with one_change_at_a_time(schedule.id):
        since = utc_now()
        try:
            await prefect.update_deployment(schedule.id, changes)
        except BadRequest:
            if not changes.get("enforce_parameter_schema", schedule.enforce_parameter_schema):
                raise
            # Its parameters were changed a moment ago, and Prefect looks at those that it has now.
            await prefect.update_deployment(schedule.id, {**changes, "enforce_parameter_schema": False})
        # It may have been switched on or off meanwhile.
        await plan_again(prefect, await prefect.read_deployment(schedule.id), since)
