"""Which deployment a workflow runs on.

The rule: the deployment that is named like the workflow; where there is none, the one that was made first. Deployments
that are schedules (made over the API, marked with a label) never count: they follow this one.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from uuid import UUID

from spine.errors import Conflict, NotFound
from spine.prefect.client import Deployment, Flow, Prefect
from spine.workflows.labels import SCHEDULE_LABEL


def is_schedule(deployment: Deployment) -> bool:
    """Whether this deployment was made over the API as a schedule."""
    return SCHEDULE_LABEL in deployment.labels


def own_deployment(workflow_name: str, deployments: Iterable[Deployment]) -> Deployment | None:
    """The one out of a flow's deployments that the workflow runs on."""
    candidates = [deployment for deployment in deployments if not is_schedule(deployment)]
    return min(candidates, key=lambda one: (one.name != workflow_name, one.created, one.id), default=None)


async def own_deployments(prefect: Prefect, flows: Sequence[Flow]) -> dict[UUID, Deployment]:
    """The deployment that each of these workflows runs on, by flow id; flows without one are left out."""
    if not flows:
        return {}
    # A flow can have a thousand schedules, so all of its deployments are read only if it has no namesake.
    namesakes = await prefect.deployments({"deployments": {"name": {"any_": [flow.name for flow in flows]}}})
    names = {flow.id: flow.name for flow in flows}
    own = {one.flow_id: one for one in namesakes if names.get(one.flow_id) == one.name and not is_schedule(one)}
    others = [flow for flow in flows if flow.id not in own]
    if others:
        everything = await prefect.deployments({"flows": {"id": {"any_": [str(flow.id) for flow in others]}}})
        for flow in others:
            found = own_deployment(flow.name, [one for one in everything if one.flow_id == flow.id])
            if found is not None:
                own[flow.id] = found
    return own


async def find_workflow(prefect: Prefect, workflow_name: str) -> Deployment:
    """The deployment that the workflow with this name runs on.

    Raises `NotFound` with near names, and `Conflict` for a flow that has no deployment to run on.
    """
    of_flow = {"flows": {"name": {"any_": [workflow_name]}}}
    namesake = await prefect.deployments({**of_flow, "deployments": {"name": {"any_": [workflow_name]}}})
    deployment = own_deployment(workflow_name, namesake)
    if deployment is None:
        deployment = own_deployment(workflow_name, await prefect.deployments(of_flow))
    if deployment is not None:
        return deployment
    known = [flow.name for flow in await prefect.all_flows()]
    if workflow_name in known:
        raise Conflict(
            f"The flow {workflow_name!r} has no deployment to run on. Give it an entry in prefect.yaml "
            f"and run `prefect deploy --name {workflow_name}`."
        )
    near = get_close_matches(workflow_name, known, n=3)
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    raise NotFound(f"No workflow is named {workflow_name!r}.{hint}")
