"""Change a schedule: one request to Prefect, in one transaction there, so that two changes at once do not mix."""

from typing import Any

from spine.database import SessionFactory
from spine.errors import Conflict
from spine.prefect.client import Deployment, Prefect, ScheduleRow
from spine.prefect.filters import Json
from spine.schedules.deploy_guard.guard import note_switch
from spine.schedules.deployments import INHERITED_TAGS_LABEL, find_schedule, flow_of
from spine.schedules.listing import Catalogue
from spine.schedules.overlap import concurrency, max_instances_of, overlap_policy_of
from spine.schedules.planning import delete_outdated, delete_unbegun, one_change_at_a_time, plan_again
from spine.schedules.schemas import ScheduleResponse, ScheduleUpdate
from spine.schedules.service import present
from spine.schedules.switch import refuse_without_timing, switch_off, switch_on
from spine.schedules.timing import changed_timing, make_timing
from spine.tables.base import utc_now
from spine.workflows.deployments import own_deployments
from spine.workflows.trigger import refuse_invalid_parameters

TIMING_FIELDS = {"cron_expression", "interval_seconds", "timezone"}
OVERLAP_FIELDS = {"max_instances", "overlap_policy"}


async def update_schedule(
    prefect: Prefect, sessions: SessionFactory, catalogue: Catalogue, id_or_name: str, body: ScheduleUpdate
) -> ScheduleResponse:
    """Change what was sent; planned runs are planned anew.

    Raises `NotFound`, `BadRequest` naming each wrong value, and `Conflict` for the timing of a deployment with several.
    """
    found = await find_schedule(prefect, id_or_name)
    async with one_change_at_a_time(found.id):
        deployment = await _change(prefect, sessions, await prefect.read_deployment(found.id), body)
    (answer,) = await present(prefect, sessions, catalogue, [deployment])
    return answer


async def _change(
    prefect: Prefect, sessions: SessionFactory, deployment: Deployment, body: ScheduleUpdate
) -> Deployment:
    """Make the change and give the deployment as it is then."""
    # The values as sent; `model_dump` would make strings of the enumerations.
    sent = {name: getattr(body, name) for name in body.model_fields_set}
    now = utc_now()
    changes = await _changes(prefect, deployment, sent)
    if body.enabled and "schedules" not in changes:
        # Before anything is changed.
        refuse_without_timing(deployment)
    if changes:
        await prefect.update_deployment(deployment.id, changes)
        if changes.keys() & {"schedules", "parameters"}:
            await delete_unbegun(prefect, deployment.id, due_too=False)
        deployment = await prefect.read_deployment(deployment.id)
        # A schedule that was changed looks like one that was deployed anew.
        await note_switch(sessions, deployment)
        if body.enabled is not False:
            await plan_again(prefect, deployment, now)
        if "schedules" in changes:
            await delete_outdated(prefect, [deployment.id])
    if body.enabled is not None:
        switch = switch_on if body.enabled else switch_off
        deployment = await switch(prefect, sessions, deployment)
    return deployment


async def _changes(prefect: Prefect, deployment: Deployment, sent: dict[str, Any]) -> Json:
    """The body of Prefect's request."""
    changes: Json = {}
    if "description" in sent:
        changes["description"] = sent["description"]
    if "tags" in sent:
        changes["tags"] = _tags(deployment, sent["tags"] or [])
    if OVERLAP_FIELDS & sent.keys():
        policy = sent.get("overlap_policy", overlap_policy_of(deployment))
        if sent.get("max_instances", 0) is None and "overlap_policy" not in sent:
            policy = None
        changes |= concurrency(sent.get("max_instances", max_instances_of(deployment)), policy)
    if "target_params" in sent:
        changes |= await _parameters(prefect, deployment, sent["target_params"] or {})
    if TIMING_FIELDS & sent.keys():
        changes["schedules"] = [await _schedule(deployment, sent)]
    elif "target_params" in sent and len(deployment.schedules) == 1:
        # Parameters of the schedule itself would hide those of the deployment.
        changes["schedules"] = [_rewritten(deployment.schedules[0], {"parameters": {}})]
    return changes


def _tags(deployment: Deployment, given: list[str]) -> list[str]:
    inherited = str(deployment.labels.get(INHERITED_TAGS_LABEL, "")).split("\n")
    kept = [tag for tag in deployment.tags if tag in inherited]
    return list(dict.fromkeys([*given, *kept]))


async def _parameters(prefect: Prefect, deployment: Deployment, given: dict[str, Any]) -> Json:
    flow = await flow_of(prefect, deployment)
    own = (await own_deployments(prefect, [flow])).get(flow.id)
    if own is None or own.id == deployment.id:
        bare = deployment.model_copy(update={"parameters": {}})
        refuse_invalid_parameters(flow.name, bare, given, "target_params")
        return {"parameters": given}
    refuse_invalid_parameters(flow.name, own, given, "target_params")
    # Prefect stopped checking them while they did not fit; now they do.
    return {"parameters": {**own.parameters, **given}, "enforce_parameter_schema": own.enforce_parameter_schema}


async def _schedule(deployment: Deployment, sent: dict[str, Any]) -> Json:
    """The one schedule of a deployment with its new timing; all else about it stays."""
    if len(deployment.schedules) > 1:
        raise Conflict(
            f"The deployment {deployment.name!r} has {len(deployment.schedules)} schedules, so there is no one timing "
            "to change; change them in prefect.yaml or in the Prefect UI."
        )
    cron, interval, timezone = changed_timing(deployment, sent)
    timing = await make_timing(cron, interval, timezone, utc_now())
    if deployment.schedules and not {"cron_expression", "interval_seconds"} & sent.keys():
        # Only the time zone changes: an interval goes on counting from where it did, a cron keeps its other options.
        timing = {**deployment.schedules[0].schedule, "timezone": timezone}
    if not deployment.schedules:
        return {"schedule": timing, "active": True}
    changes = {"schedule": timing} | ({"parameters": {}} if "target_params" in sent else {})
    return _rewritten(deployment.schedules[0], changes)


def _rewritten(row: ScheduleRow, changes: Json) -> Json:
    """A schedule as Prefect takes it, with what is not in `changes` as it is.

    That goes for the slug, too: Prefect refuses a file with slugs over schedules without them, and the reverse.
    """
    return row.model_dump(include={"slug", "schedule", "active", "parameters"}) | changes
