"""A schedule as the audit trail keeps it."""

from spine.prefect.client import Deployment
from spine.prefect.filters import Json
from spine.schedules.deployments import is_enabled, max_instances_of, overlap_policy_of, shown_description


def settings_of(deployment: Deployment) -> Json:
    """What people set."""
    policy = overlap_policy_of(deployment)
    timings = [
        row.model_dump(mode="json", include={"schedule", "active", "slug", "parameters"})
        for row in deployment.schedules
    ]
    return {
        "enabled": is_enabled(deployment),
        "description": shown_description(deployment),
        "parameters": deployment.parameters,
        "tags": deployment.tags,
        "timings": timings,
        "max_instances": max_instances_of(deployment),
        "overlap_policy": policy.value if policy else None,
    }
