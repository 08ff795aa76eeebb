"""Imports the flows of a pool's deployments before their first run."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import uuid4

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.logging import get_logger
from prefect.workers.process import ProcessJobConfiguration

from spine_worker.eligibility import workspace_of
from spine_worker.warm import CannotFork, Code, WarmServers

# The most that Prefect returns at once.
_MOST_DEPLOYMENTS = 200
_logger = get_logger("worker.spine")

# The configuration of a run of a deployment.
Resolve = Callable[[FlowRun, DeploymentResponse], Awaitable[ProcessJobConfiguration]]


async def warm_up(servers: WarmServers, client: PrefectClient, pool: str, resolve: Resolve) -> None:
    """Import the flows of the pool's deployments, for runs without variables of their own."""
    in_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    deployments = await client.read_deployments(work_pool_filter=in_pool, limit=_MOST_DEPLOYMENTS)
    codes = [code for one in deployments if (code := await _code_of(one, resolve)) is not None]
    servers.keep(frozenset(codes))
    for code in codes:
        if not servers.has(code) and not servers.is_full:
            with suppress(CannotFork):
                await servers.server(code)


async def _code_of(deployment: DeploymentResponse, resolve: Resolve) -> Code | None:
    """The code of a deployment's runs; None if they cannot be forked."""
    run = FlowRun(id=uuid4(), flow_id=deployment.flow_id, name="", deployment_id=deployment.id)
    try:
        return workspace_of(await resolve(run, deployment), deployment).code
    except CannotFork:
        return None
    except Exception as error:  # Its runs report the error; the other deployments must still be prepared.
        _logger.debug("Deployment %s cannot be prepared: %s", deployment.name, error)
        return None
