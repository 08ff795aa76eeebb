"""Schedules as Prefect stores them: which deployments are schedules, and what their fields and labels mean.

A schedule is a deployment that has a schedule in Prefect, or that was created over the API as one and then lost it.
"""

from typing import Any
from uuid import UUID

from spine.auth.domains import Domains
from spine.errors import Conflict, NotFound
from spine.names import domains_in
from spine.prefect.client import Deployment, Prefect
from spine.prefect.filters import Json
from spine.schedules.schemas import OverlapPolicy, TargetType
from spine.workflows.deployments import is_schedule as made_over_api

TARGET_TYPE_LABEL = "spine.target_type"
CREATED_BY_LABEL = "spine.created_by"
# The tags that the schedule inherits from its workflow, joined by newlines; labels cannot be changed after creation.
INHERITED_TAGS_LABEL = "spine.inherited_tags"

_STRATEGIES = {OverlapPolicy.ENQUEUE: "ENQUEUE", OverlapPolicy.SKIP: "CANCEL_NEW"}
_POLICIES = {strategy: policy for policy, strategy in _STRATEGIES.items()}


def has_schedule(deployment: Deployment) -> bool:
    """Whether a deployment is a schedule."""
    return made_over_api(deployment) or bool(deployment.schedules)


def is_enabled(deployment: Deployment) -> bool:
    """Whether Prefect plans runs of a deployment."""
    return not deployment.paused and any(row.active for row in deployment.schedules)


def target_type_of(deployment: Deployment) -> TargetType:
    """The target type given when the schedule was created; deployments that CI made start workflows."""
    pipeline = deployment.labels.get(TARGET_TYPE_LABEL) == TargetType.PIPELINE
    return TargetType.PIPELINE if pipeline else TargetType.WORKFLOW


def inherited_at_creation(deployment: Deployment) -> list[str]:
    """The tags that a schedule inherited from its workflow when it was created."""
    return str(deployment.labels.get(INHERITED_TAGS_LABEL, "")).split("\n")


def concurrency(max_instances: int | None, overlap_policy: OverlapPolicy | None) -> Json:
    """Prefect's concurrency fields for both; a policy without a number means one run at a time."""
    if max_instances is None and overlap_policy is not None:
        max_instances = 1
    options = {"collision_strategy": _STRATEGIES[overlap_policy]} if overlap_policy else None
    return {"concurrency_limit": max_instances, "concurrency_options": options}


def changed_concurrency(deployment: Deployment, sent: dict[str, Any]) -> Json:
    """Prefect's concurrency fields for a change of `max_instances` and `overlap_policy`; what is not sent stays.

    Raises `Conflict` for the number of a limit that other deployments have, too.
    """
    changes: Json = {}
    policy: OverlapPolicy | None = sent.get("overlap_policy")
    if "max_instances" in sent:
        changes["concurrency_limit"] = sent["max_instances"]
    if policy and sent.get("max_instances", max_instances_of(deployment)) is None:
        changes["concurrency_limit"] = 1
    if "concurrency_limit" in changes and (shared := shared_limit_of(deployment)) is not None:
        raise Conflict(
            f"The schedule {deployment.name!r} shares the concurrency limit {shared!r} with other deployments; "
            "change max_instances in Prefect."
        )
    if "overlap_policy" in sent:
        present = deployment.concurrency_options
        grace = {"grace_period_seconds": present.grace_period_seconds} if present else {}
        if policy or any(grace.values()):
            changes["concurrency_options"] = {
                "collision_strategy": _STRATEGIES[policy or OverlapPolicy.ENQUEUE],
                **grace,
            }
        else:
            changes["concurrency_options"] = None
    return changes


def shared_limit_of(deployment: Deployment) -> str | None:
    """The name of a concurrency limit that was not made for this deployment alone; None if it has no such limit."""
    limit = deployment.global_concurrency_limit
    return limit.name if limit and limit.name != f"deployment:{deployment.id}" else None


def max_instances_of(deployment: Deployment) -> int | None:
    """How many runs of a schedule may be in progress at once; None for no limit."""
    limit = deployment.global_concurrency_limit
    return limit.limit if limit else None


def overlap_policy_of(deployment: Deployment) -> OverlapPolicy | None:
    """What happens to runs beyond that limit; None without a limit. Prefect enqueues by default."""
    if deployment.global_concurrency_limit is None:
        return None
    options = deployment.concurrency_options
    return _POLICIES.get(options.collision_strategy) if options else OverlapPolicy.ENQUEUE


def shown_description(deployment: Deployment) -> str | None:
    """The description of a schedule."""
    # `prefect deploy` stores the word None for a flow without a docstring.
    return None if deployment.description in ("None", "") else deployment.description


def shown_tags(deployment: Deployment) -> list[str] | None:
    """The tags of a schedule without those that it inherited; None if it has no others."""
    inherited = inherited_at_creation(deployment)
    return [tag for tag in deployment.tags if tag not in inherited] or None


async def find_schedule(prefect: Prefect, domains: Domains, id_or_name: str) -> Deployment:
    """The schedule with this id or name.

    Raises `NotFound`, also for a schedule of another domain, and `Conflict` for a name that several flows have.
    """
    try:
        deployment = await prefect.read_deployment(UUID(id_or_name))
    except ValueError:
        return await _find_by_name(prefect, domains, id_or_name)
    except NotFound:
        deployment = None
    if deployment is None or not domains.allow_any(domains_in(deployment.tags)):
        raise NotFound(f"No schedule has the id {id_or_name}.")
    if not has_schedule(deployment):
        raise NotFound(f"The deployment {deployment.name!r} has no schedule.")
    return deployment


async def workflow_of(prefect: Prefect, deployment: Deployment) -> str:
    """The name of a schedule's workflow. Raises `NotFound` if it was deleted a moment ago, and the schedule with it."""
    names = await prefect.flow_names([deployment.flow_id])
    if deployment.flow_id not in names:
        raise NotFound(f"The schedule {deployment.name!r} was deleted with its workflow.")
    return names[deployment.flow_id]


async def _find_by_name(prefect: Prefect, domains: Domains, name: str) -> Deployment:
    # Names are printable; Prefect's database may not accept any other text in a query.
    wanted = {"deployments": {"name": {"any_": [name]}}}
    found = await prefect.deployments(wanted) if name.isprintable() else []
    schedules = [one for one in found if has_schedule(one) and domains.allow_any(domains_in(one.tags))]
    if not schedules:
        raise NotFound(f"No schedule is named {name!r}.")
    if len(schedules) > 1:
        ids = ", ".join(str(deployment.id) for deployment in schedules)
        raise Conflict(f"Deployments of {len(schedules)} flows are named {name!r}; use the id: {ids}.")
    return schedules[0]
