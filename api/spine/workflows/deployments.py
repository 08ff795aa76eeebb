"""Which deployment a workflow runs on.

It is the deployment with the same name as the workflow or, if there is none, the oldest one. Deployments that the API
made for schedules have a label and never count: they copy this one.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from uuid import UUID

from spine.auth.domains import Domains
from spine.errors import Conflict, NotFound
from spine.names import domains_in
from spine.prefect.client import Deployment, Prefect
from spine.prefect.transport import texts
from spine.text import unstorable_characters
from spine.workflows.labels import SCHEDULE_LABEL


def is_schedule(deployment: Deployment) -> bool:
    """Whether the API made this deployment for a schedule."""
    return SCHEDULE_LABEL in deployment.labels


def own_deployment(workflow_name: str, deployments: Iterable[Deployment]) -> Deployment | None:
    """The deployment that the workflow runs on, of all deployments of its flow."""
    candidates = [deployment for deployment in deployments if not is_schedule(deployment)]
    return min(candidates, key=lambda one: (one.name != workflow_name, one.created, one.id), default=None)


async def own_deployments(prefect: Prefect, names: Mapping[UUID, str]) -> dict[UUID, Deployment]:
    """The deployment that each of these workflows runs on, by flow id; a flow without a deployment is left out.

    `names` has the name of each flow, by its id.
    """
    if not names:
        return {}
    # A flow can have a thousand schedules, so all its deployments are read only if none has the flow's name.
    same_name = await prefect.deployments({"deployments": {"name": {"any_": list(names.values())}}})
    own = {one.flow_id: one for one in same_name if names.get(one.flow_id) == one.name and not is_schedule(one)}
    others = [flow_id for flow_id in names if flow_id not in own]
    if others:
        everything = await prefect.deployments({"flows": {"id": {"any_": texts(others)}}})
        for flow_id in others:
            found = own_deployment(names[flow_id], [one for one in everything if one.flow_id == flow_id])
            if found is not None:
                own[flow_id] = found
    return own


async def find_workflow(prefect: Prefect, domains: Domains, workflow_name: str) -> Deployment:
    """The deployment that the workflow with this name runs on.

    Raises `NotFound`, which suggests similar names, also for a workflow of another domain, and `Conflict` for a flow
    without a deployment.
    """
    if unstorable_characters(workflow_name):
        # No flow has such a name, and PostgreSQL cannot look for it.
        raise NotFound(f"No workflow is named {workflow_name!r}.")
    of_flow = {"flows": {"name": {"any_": [workflow_name]}}}
    same_name = await prefect.deployments({**of_flow, "deployments": {"name": {"any_": [workflow_name]}}})
    deployment = own_deployment(workflow_name, same_name)
    if deployment is None:
        deployment = own_deployment(workflow_name, await prefect.deployments(of_flow))
    if deployment is not None and domains.allow_any(domains_in(deployment.tags)):
        return deployment
    known = await _names_of_workflows(prefect, domains)
    if workflow_name in known:
        raise Conflict(
            f"The flow {workflow_name!r} has no deployment to run on. Add it to prefect.yaml "
            f"and run `prefect deploy --name {workflow_name}`."
        )
    near = get_close_matches(workflow_name, known, n=3)
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    raise NotFound(f"No workflow is named {workflow_name!r}.{hint}")


async def _names_of_workflows(prefect: Prefect, domains: Domains) -> list[str]:
    """The names of all flows; for a limited credential, of those whose deployment has one of its domains."""
    flows = await prefect.all_flows()
    if not domains.is_limited:
        return [flow.name for flow in flows]
    own = await own_deployments(prefect, {flow.id: flow.name for flow in flows})
    return [flow.name for flow in flows if flow.id in own and domains.allow_any(domains_in(own[flow.id].tags))]
