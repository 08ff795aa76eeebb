"""`max_instances` and `overlap_policy`: Prefect's concurrency limit of a deployment and its collision strategy."""

from spine.prefect.client import Deployment
from spine.prefect.filters import Json
from spine.schedules.schemas import OverlapPolicy

_STRATEGIES = {OverlapPolicy.ENQUEUE: "ENQUEUE", OverlapPolicy.SKIP: "CANCEL_NEW"}
_POLICIES = {strategy: policy for policy, strategy in _STRATEGIES.items()}


def concurrency(max_instances: int | None, overlap_policy: OverlapPolicy | None) -> Json:
    """Prefect's fields for both; a policy without a number means one run at a time."""
    if max_instances is None and overlap_policy is not None:
        max_instances = 1
    options = {"collision_strategy": _STRATEGIES[overlap_policy]} if overlap_policy else None
    return {"concurrency_limit": max_instances, "concurrency_options": options}


def max_instances_of(deployment: Deployment) -> int | None:
    """How many runs of a schedule may be in progress at once; None for any number."""
    limit = deployment.global_concurrency_limit
    return limit.limit if limit else None


def overlap_policy_of(deployment: Deployment) -> OverlapPolicy | None:
    """What happens beyond that number; without a limit nothing does, and with one Prefect enqueues unless told."""
    if deployment.global_concurrency_limit is None:
        return None
    options = deployment.concurrency_options
    return _POLICIES.get(options.collision_strategy) if options else OverlapPolicy.ENQUEUE
