"""Change a schedule with one request, which Prefect makes one transaction, so that concurrent changes do not mix."""

from typing import Any

from spine.auth.changes import record_change
from spine.auth.domains import Domains
from spine.database import SessionFactory
from spine.errors import Conflict
from spine.names import domains_in
from spine.prefect.client import Deployment, Prefect, ScheduleRow
from spine.prefect.filters import Json
from spine.schedules.commands import refuse_other_domains, refuse_without_timing, switch_off, switch_on
from spine.schedules.deploy_guard.guard import record_state
from spine.schedules.deployments import (
    concurrency,
    find_schedule,
    flow_of,
    inherited_at_creation,
    max_instances_of,
    overlap_policy_of,
)
from spine.schedules.listing import ScheduleListing
from spine.schedules.planned_runs import change_lock, delete_outdated, delete_planned, replan
from spine.schedules.queries import present
from spine.schedules.schemas import ScheduleResponse, ScheduleUpdate
from spine.schedules.timing import changed_timing, make_timing
from spine.tables.base import utc_now
from spine.workflows.deployments import own_deployments
from spine.workflows.trigger import refuse_invalid_parameters

TIMING_FIELDS = {"cron_expression", "interval_seconds", "timezone"}
OVERLAP_FIELDS = {"max_instances", "overlap_policy"}


async def update_schedule(
    prefect: Prefect,
    sessions: SessionFactory,
    listing: ScheduleListing,
    domains: Domains,
    id_or_name: str,
    body: ScheduleUpdate,
) -> ScheduleResponse:
    """Change the fields that were sent; planned runs are planned again.

    Raises `NotFound`, `BadRequest` with each invalid value, `Conflict` for the timing of a deployment with several, and
    `Forbidden` for tags of another domain and for parameters of a workflow of another domain.
    """
    found = await find_schedule(prefect, domains, id_or_name)
    async with change_lock(found.id):
        deployment = await _change(prefect, sessions, domains, await prefect.read_deployment(found.id), body)
    record_change("updated", "schedule", deployment.id, deployment.name)
    (answer,) = await present(prefect, sessions, listing, [deployment])
    return answer


async def _change(
    prefect: Prefect, sessions: SessionFactory, domains: Domains, deployment: Deployment, body: ScheduleUpdate
) -> Deployment:
    """Make the change and return the deployment as it is afterwards."""
    # The values as sent; `model_dump` would turn the enumerations into strings.
    sent = {name: getattr(body, name) for name in body.model_fields_set}
    now = utc_now()
    changes = await _changes(prefect, domains, deployment, sent)
    if body.enabled and "schedules" not in changes:
        # Check this before anything is changed.
        refuse_without_timing(deployment)
    if changes:
        await prefect.update_deployment(deployment.id, changes)
        if changes.keys() & {"schedules", "parameters"}:
            await delete_planned(prefect, deployment.id, due_too=False)
        deployment = await prefect.read_deployment(deployment.id)
        # A changed schedule looks like one that was deployed again.
        await record_state(sessions, deployment)
        if body.enabled is not False:
            await replan(prefect, deployment, now)
        if "schedules" in changes:
            await delete_outdated(prefect, [deployment.id])
    if body.enabled is not None:
        switch = switch_on if body.enabled else switch_off
        deployment = await switch(prefect, sessions, deployment)
    return deployment


async def _changes(prefect: Prefect, domains: Domains, deployment: Deployment, sent: dict[str, Any]) -> Json:
    """The body of Prefect's request."""
    changes: Json = {}
    if "description" in sent:
        changes["description"] = sent["description"]
    if "tags" in sent:
        changes["tags"] = _tags(domains, deployment, sent["tags"] or [])
    if OVERLAP_FIELDS & sent.keys():
        policy = sent.get("overlap_policy", overlap_policy_of(deployment))
        if sent.get("max_instances", 0) is None and "overlap_policy" not in sent:
            policy = None
        changes |= concurrency(sent.get("max_instances", max_instances_of(deployment)), policy)
    if "target_params" in sent:
        changes |= await _parameters(prefect, domains, deployment, sent["target_params"] or {})
    if TIMING_FIELDS & sent.keys():
        changes["schedules"] = [await _schedule(deployment, sent)]
    elif "target_params" in sent and len(deployment.schedules) == 1:
        # Parameters of the schedule itself would override those of the deployment.
        changes["schedules"] = [_rewritten(deployment.schedules[0], {"parameters": {}})]
    return changes


def _tags(domains: Domains, deployment: Deployment, given: list[str]) -> list[str]:
    inherited = inherited_at_creation(deployment)
    kept = [tag for tag in deployment.tags if tag in inherited]
    tags = list(dict.fromkeys([*given, *kept]))
    refuse_other_domains(domains, tags, deployment.tags)
    if not domains.allow_any(domains_in(tags)):
        domains.require(None, "the schedule")
    return tags


async def _parameters(prefect: Prefect, domains: Domains, deployment: Deployment, given: dict[str, Any]) -> Json:
    flow = await flow_of(prefect, deployment)
    own = (await own_deployments(prefect, [flow])).get(flow.id)
    if own is not None and not domains.allow_any(domains_in(own.tags)):
        # The schedule of a source runs Spine's own flow, whose parameters say which source is fetched.
        domains.require_unlimited(
            "the workflow of this schedule belongs to none of them; its parameters cannot be changed"
        )
    if own is None or own.id == deployment.id:
        bare = deployment.model_copy(update={"parameters": {}})
        refuse_invalid_parameters(flow.name, bare, given, "target_params")
        return {"parameters": given}
    refuse_invalid_parameters(flow.name, own, given, "target_params")
    # Prefect stopped checking the old parameters if they did not fit the code; the new ones do.
    return {"parameters": {**own.parameters, **given}, "enforce_parameter_schema": own.enforce_parameter_schema}


async def _schedule(deployment: Deployment, sent: dict[str, Any]) -> Json:
    """The one schedule of a deployment with its new timing; its other fields stay."""
    if len(deployment.schedules) > 1:
        raise Conflict(
            f"The deployment {deployment.name!r} has {len(deployment.schedules)} schedules; "
            "change their timing in prefect.yaml or in the Prefect UI."
        )
    cron, interval, timezone = changed_timing(deployment, sent)
    timing = await make_timing(cron, interval, timezone, utc_now())
    if deployment.schedules and not {"cron_expression", "interval_seconds"} & sent.keys():
        # Only the time zone changes: an interval keeps its anchor date, a cron keeps its other options.
        timing = {**deployment.schedules[0].schedule, "timezone": timezone}
    if not deployment.schedules:
        return {"schedule": timing, "active": True}
    changes = {"schedule": timing} | ({"parameters": {}} if "target_params" in sent else {})
    return _rewritten(deployment.schedules[0], changes)


def _rewritten(row: ScheduleRow, changes: Json) -> Json:
    """A schedule as Prefect's request takes it: its present fields with `changes`.

    It keeps the slug, too: Prefect refuses to deploy a file with slugs over schedules without them, and the reverse.
    """
    return row.model_dump(include={"slug", "schedule", "active", "parameters"}) | changes
