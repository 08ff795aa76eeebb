"""Keep the schedules that the API created on the code of their workflow.

`prefect deploy` changes only the deployments in its file, so a schedule's deployment would run the old entrypoint,
image and pull steps forever. Whenever the workflow's own deployment has changed, the differences are copied to its
schedules, and their planned runs are planned again. A schedule keeps its own name, parameters, timing, state,
description and concurrency, and the job variables that people have changed on it.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

import structlog

from spine.audit.trail import changing
from spine.database import SessionFactory
from spine.errors import BadRequest, SpineError
from spine.json_rule import is_same
from spine.oddities import ODDITIES
from spine.prefect.client import Deployment, Prefect
from spine.prefect.filters import Json
from spine.prefect.parameters import prefect_accepts
from spine.schedules.copied_variables import read_copied, record_copied, with_changes_of_people
from spine.schedules.deployments import inherited_at_creation
from spine.schedules.planned_runs import change_lock, replan
from spine.tables.base import utc_now

# These tags classify runs and alerts of a workflow, so its schedules inherit them.
INHERITED_PREFIXES = ("domain:", "severity:", "alert:")

# What Prefect stores for a flow without parameters, or without a schema.
NO_PARAMETERS: Json = {"type": "object", "properties": {}}

log = structlog.get_logger("spine.schedules")


def code_of(own: Deployment) -> Json:
    """The fields of a deployment that define which code runs where, as in Prefect's API."""
    return {
        "entrypoint": own.entrypoint,
        "path": own.path,
        "pull_steps": own.pull_steps,
        "job_variables": own.job_variables or {},
        "work_pool_name": own.work_pool_name,
        # Prefect would create a queue for a name without a pool.
        "work_queue_name": own.work_queue_name if own.work_pool_name else None,
        "parameter_openapi_schema": own.parameter_openapi_schema or NO_PARAMETERS,
        "enforce_parameter_schema": own.enforce_parameter_schema,
        "version": own.version,
        "storage_document_id": own.storage_document_id and str(own.storage_document_id),
        "infrastructure_document_id": own.infrastructure_document_id and str(own.infrastructure_document_id),
    }


def inherited_tags(own: Deployment) -> list[str]:
    """The tags that a workflow's schedules inherit."""
    return [tag for tag in own.tags if tag.startswith(INHERITED_PREFIXES)]


async def sync_code(
    prefect: Prefect,
    sessions: SessionFactory,
    own: Deployment,
    schedules: Sequence[Deployment],
    tags_before: Collection[str] = (),
) -> None:
    """Copy the code of a workflow's own deployment to its schedules.

    `tags_before` are the workflow's previous tags, as far as they are known. A schedule that cannot be changed is
    logged and does not stop the others. Raises `DatabaseUnavailable`.
    """
    known = await read_copied(sessions, schedules)
    variables = own.job_variables or {}
    copied: dict[UUID, Json] = {}
    for schedule in schedules:
        try:
            changes = code_changes(own, schedule, tags_before, known.get(schedule.id))
            if schedule.id not in known or not is_same(known[schedule.id], variables):
                copied[schedule.id] = variables
            if not changes:
                continue
            await _change(prefect, schedule, changes)
        except SpineError as reason:
            copied.pop(schedule.id, None)
            log.warning("schedule_code_sync_failed", schedule=schedule.name, id=str(schedule.id), reason=reason.detail)
        except Exception as error:
            copied.pop(schedule.id, None)
            ODDITIES.found("schedule", schedule.id, f"its code cannot be synced ({type(error).__name__})")
        else:
            log.info("schedule_code_synced", schedule=schedule.name, id=str(schedule.id), changed=sorted(changes))
    await record_copied(sessions, copied)


def code_changes(own: Deployment, schedule: Deployment, tags_before: Collection[str], copied: Json | None) -> Json:
    """The fields in which a schedule differs from what it should have, as in Prefect's API; empty if there are none.

    `copied` are the job variables that it got last. If they are not known, none of its own are kept.
    """
    wanted, present = code_of(own), code_of(schedule)
    if copied is not None:
        wanted["job_variables"] = with_changes_of_people(wanted["job_variables"], copied, present["job_variables"])
    if wanted != present and not prefect_accepts(wanted["parameter_openapi_schema"], schedule.parameters):
        # Prefect would refuse the new schema. Sync the code all the same; the schedule's `problem` says what is wrong.
        wanted["enforce_parameter_schema"] = False
    changes = {name: value for name, value in wanted.items() if value != present[name]}
    if {"work_pool_name", "work_queue_name"} & changes.keys():
        # Prefect looks up the queue in the pool that is sent with it.
        changes |= {name: wanted[name] for name in ("work_pool_name", "work_queue_name")}
    tags = _tags(own, schedule, tags_before)
    return changes if tags == schedule.tags else {**changes, "tags": tags}


def _tags(own: Deployment, schedule: Deployment, tags_before: Collection[str]) -> list[str]:
    now = inherited_tags(own)
    before = {tag for tag in tags_before if tag.startswith(INHERITED_PREFIXES)}
    stale = {*inherited_at_creation(schedule), *before} - set(now)
    kept = [tag for tag in schedule.tags if tag not in stale]
    return kept + [tag for tag in now if tag not in kept]


async def _change(prefect: Prefect, schedule: Deployment, changes: Json) -> None:
    before = schedule.model_dump(mode="json", include=set(changes))
    recording = changing("synced", "schedule", schedule.id, schedule.name, before=before)
    async with recording as change, change_lock(schedule.id):
        change.after = changes
        since = utc_now()
        try:
            await prefect.update_deployment(schedule.id, changes)
        except BadRequest:
            if not changes.get("enforce_parameter_schema", schedule.enforce_parameter_schema):
                raise
            # Its parameters were changed a moment ago, and Prefect checks the present ones.
            await prefect.update_deployment(schedule.id, {**changes, "enforce_parameter_schema": False})
        # It may have been enabled or disabled meanwhile.
        await replan(prefect, await prefect.read_deployment(schedule.id), since)
