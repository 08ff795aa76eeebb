"""Which deployments are schedules, and what the marks on those that the API made mean.

A schedule is a deployment that has a schedule in Prefect, or that was made over the API as one and has lost it since.
"""

from uuid import UUID

from spine.errors import Conflict, NotFound
from spine.prefect.client import Deployment, Flow, Prefect
from spine.workflows.deployments import is_schedule as made_over_api

TARGET_TYPE_LABEL = "spine.target_type"
CREATED_BY_LABEL = "spine.created_by"
# Tags that the schedule has from its workflow, joined by newlines; labels cannot be changed once a deployment exists.
INHERITED_TAGS_LABEL = "spine.inherited_tags"


def has_schedule(deployment: Deployment) -> bool:
    """Whether a deployment is a schedule."""
    return made_over_api(deployment) or bool(deployment.schedules)


def is_enabled(deployment: Deployment) -> bool:
    """Whether Prefect plans runs of a deployment."""
    return not deployment.paused and any(row.active for row in deployment.schedules)


async def find_schedule(prefect: Prefect, id_or_name: str) -> Deployment:
    """The schedule with this id or name.

    Raises `NotFound`, and `Conflict` for a name that deployments of several flows have.
    """
    try:
        deployment = await prefect.read_deployment(UUID(id_or_name))
    except ValueError:
        return await _find_by_name(prefect, id_or_name)
    except NotFound:
        raise NotFound(f"No schedule has the id {id_or_name}.") from None
    if not has_schedule(deployment):
        raise NotFound(f"The deployment {deployment.name!r} has no schedule.")
    return deployment


async def flow_of(prefect: Prefect, deployment: Deployment) -> Flow:
    """The flow of a schedule; `NotFound` when it was deleted a moment ago, and the schedule with it."""
    flow = (await prefect.flows_by_id([deployment.flow_id])).get(deployment.flow_id)
    if flow is None:
        raise NotFound(f"The schedule {deployment.name!r} was deleted with its workflow.")
    return flow


async def _find_by_name(prefect: Prefect, name: str) -> Deployment:
    # Names are printable; Prefect's database may not even take another one as a question.
    wanted = {"deployments": {"name": {"any_": [name]}}}
    found = await prefect.deployments(wanted) if name.isprintable() else []
    schedules = [deployment for deployment in found if has_schedule(deployment)]
    if not schedules:
        raise NotFound(f"No schedule is named {name!r}.")
    if len(schedules) > 1:
        ids = ", ".join(str(deployment.id) for deployment in schedules)
        raise Conflict(f"Deployments of {len(schedules)} flows are named {name!r}; use the id: {ids}.")
    return schedules[0]
