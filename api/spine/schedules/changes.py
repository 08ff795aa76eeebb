"""What a PATCH of a schedule changes in Prefect: only what was sent and is not so already."""

from datetime import datetime
from typing import Any

from spine.auth.domains import Domains
from spine.errors import Conflict
from spine.json_rule import is_same
from spine.names import domains_in
from spine.prefect.client import Deployment, Prefect, ScheduleRow
from spine.prefect.filters import Json
from spine.schedules.commands import refuse_other_domains
from spine.schedules.deployments import (
    changed_concurrency,
    inherited_at_creation,
    max_instances_of,
    overlap_policy_of,
    shown_description,
    shown_tags,
    workflow_of,
)
from spine.schedules.timing import changed_timing
from spine.workflows.deployments import is_schedule as made_over_api
from spine.workflows.deployments import own_deployments
from spine.workflows.trigger import refuse_invalid_parameters

TIMING_FIELDS = {"cron_expression", "interval_seconds", "timezone"}


async def changes_for(
    prefect: Prefect, domains: Domains, deployment: Deployment, sent: dict[str, Any], now: datetime
) -> Json:
    """The body of Prefect's request that changes a deployment; empty if everything that was sent is so already.

    Raises `BadRequest` with each invalid value, `Conflict` for what this deployment cannot have changed here, and
    `Forbidden` for tags and workflows of another domain.
    """
    sent = _not_so_already(deployment, sent)
    changes: Json = {}
    if "description" in sent:
        changes["description"] = sent["description"]
    if "tags" in sent:
        changes["tags"] = _tags(domains, deployment, sent["tags"] or [])
    changes |= changed_concurrency(deployment, sent)
    row: Json = {}
    if "target_params" in sent:
        fields, row = await _parameters(prefect, domains, deployment, sent["target_params"] or {})
        changes |= fields
    if TIMING_FIELDS & sent.keys() and (timing := await _timing(deployment, sent, now)):
        row["schedule"] = timing
    if row:
        changes["schedules"] = [_rewritten(deployment.schedules, row)]
    return changes


def _not_so_already(deployment: Deployment, sent: dict[str, Any]) -> dict[str, Any]:
    """What was sent without the fields that would not change; the fields of the timing belong together and stay."""
    shown = {
        "description": shown_description(deployment),
        "tags": shown_tags(deployment),
        "max_instances": max_instances_of(deployment),
        "overlap_policy": overlap_policy_of(deployment),
    }
    return {name: value for name, value in sent.items() if name not in shown or (value or None) != shown[name]}


def _tags(domains: Domains, deployment: Deployment, given: list[str]) -> list[str]:
    inherited = inherited_at_creation(deployment)
    kept = [tag for tag in deployment.tags if tag in inherited]
    tags = list(dict.fromkeys([*given, *kept]))
    refuse_other_domains(domains, tags, deployment.tags)
    if not domains.allow_any(domains_in(tags)):
        domains.require(None, "the schedule")
    return tags


async def _parameters(
    prefect: Prefect, domains: Domains, deployment: Deployment, given: dict[str, Any]
) -> tuple[Json, Json]:
    """The changed fields of the deployment, and those of its schedule if it has exactly one."""
    only = deployment.schedules[0] if len(deployment.schedules) == 1 else None
    present = {**deployment.parameters, **(only.parameters if only else {})}
    if is_same(given, present):
        return {}, {}
    wanted, fields = await _checked(prefect, domains, deployment, given)
    if only is None or not only.parameters:
        _refuse_unseen(deployment, wanted)
        of_deployment, of_row = wanted, {}
    else:
        # They stay where they are: a workflow that is started by hand has those of the deployment as its defaults.
        of_deployment = {name: value for name, value in deployment.parameters.items() if name in wanted}
        of_row = {
            name: value
            for name, value in wanted.items()
            if name not in of_deployment or not is_same(value, of_deployment[name])
        }
    if not is_same(of_deployment, deployment.parameters):
        fields["parameters"] = of_deployment
    return fields, {"parameters": of_row} if only and not is_same(of_row, only.parameters) else {}


async def _checked(
    prefect: Prefect, domains: Domains, deployment: Deployment, given: dict[str, Any]
) -> tuple[Json, Json]:
    """All parameters that the schedule's runs shall have, and the fields that change with them."""
    workflow = await workflow_of(prefect, deployment)
    own = (await own_deployments(prefect, {deployment.flow_id: workflow})).get(deployment.flow_id)
    if own is not None and not domains.allow_any(domains_in(own.tags)):
        # The schedule of a source runs Spine's own flow, whose parameters say which source is fetched.
        domains.require_unlimited(
            "the workflow of this schedule belongs to none of them; its parameters cannot be changed"
        )
    if own is None or not made_over_api(deployment):
        bare = deployment.model_copy(update={"parameters": {}})
        refuse_invalid_parameters(workflow, bare, given, "target_params")
        return given, {}
    refuse_invalid_parameters(workflow, own, given, "target_params")
    # Prefect stopped checking the old parameters if they did not fit the code; the new ones do.
    enforced = own.enforce_parameter_schema
    fields: Json = {} if enforced == deployment.enforce_parameter_schema else {"enforce_parameter_schema": enforced}
    return {**own.parameters, **given}, fields


def _refuse_unseen(deployment: Deployment, wanted: Json) -> None:
    """Raise `Conflict` for a parameter that no run would have: each schedule of the deployment has its own value."""
    before = deployment.parameters
    changed = [name for name in {**before, **wanted} if not is_same(wanted.get(name), before.get(name))]
    rows = [row for row in deployment.schedules if row.active] or deployment.schedules
    unseen = [name for name in changed if rows and all(name in row.parameters for row in rows)]
    if unseen:
        raise Conflict(
            f"Each of the {len(rows)} schedules of the deployment {deployment.name!r} has its own value of "
            f"{', '.join(unseen)}, so no run would have this one; change it in prefect.yaml or in the Prefect UI."
        )


async def _timing(deployment: Deployment, sent: dict[str, Any], now: datetime) -> Json | None:
    """The new timing of the deployment's one schedule; None if it stays."""
    if len(deployment.schedules) > 1:
        if await _is_timing_of_all(deployment, sent, now):
            return None
        raise Conflict(
            f"The deployment {deployment.name!r} has {len(deployment.schedules)} schedules; "
            "change their timing in prefect.yaml or in the Prefect UI."
        )
    return await changed_timing(deployment.schedules[0] if deployment.schedules else None, sent, now)


async def _is_timing_of_all(deployment: Deployment, sent: dict[str, Any], now: datetime) -> bool:
    """Whether what was sent is what a response shows for several schedules: no expression, and their time zone."""
    if any(sent.get(name) is not None for name in ("cron_expression", "interval_seconds")):
        return False
    zone = {"timezone": sent["timezone"]} if "timezone" in sent else {}
    return all([await changed_timing(row, zone, now) is None for row in deployment.schedules])


def _rewritten(rows: list[ScheduleRow], changes: Json) -> Json:
    """A deployment's only schedule as Prefect's request takes it: its present fields with `changes`.

    It keeps the slug, too: Prefect refuses to deploy a file with slugs over schedules without them, and the reverse.
    """
    present = rows[0].model_dump(include={"slug", "schedule", "active", "parameters"}) if rows else {"active": True}
    return present | changes
