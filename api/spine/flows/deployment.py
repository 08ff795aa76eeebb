"""The deployments of Spine's own flows, made by `spine up` and `spine deploy`.

They are deployed by module, so that they run wherever `prefect-spine` is installed, whatever project the worker was
started in. Parameters, schedules, tags, limits and the pause belong to whoever works in the Prefect UI: they are set
when a deployment is created and never changed afterwards.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema

from spine.flows.fetch_source import fetch_source
from spine.flows.prune import prune

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

DISTRIBUTION = "prefect-spine"
# Without a pull step Prefect would copy the directory of the worker for each run. Relative to it means: the directory
# that a worker of type `spine` was started in, or an empty temporary folder with Prefect's process worker.
PULL_STEPS = [{"prefect.deployments.steps.set_working_directory": {"directory": "."}}]


@dataclass(frozen=True)
class OwnFlow:
    """One of Spine's flows, and what its deployment has when it is created."""

    flow: Flow[..., Any]
    entrypoint: str
    tags: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    schedules: Callable[[], list[DeploymentScheduleCreate]] = list


def _nightly() -> list[DeploymentScheduleCreate]:
    return [DeploymentScheduleCreate(schedule=CronSchedule(cron="30 3 * * *", timezone="UTC"), slug="nightly")]


OWN_FLOWS = (
    # It has no domain of its own: a fetch has that of its source.
    OwnFlow(fetch_source, "spine.flows.fetch_source:fetch_source"),
    OwnFlow(prune, "spine.flows.prune:prune", ("domain:spine",), {"dry_run": True}, _nightly),
)


async def deploy_own_flows(client: "PrefectClient", work_pool: str, *, move: bool) -> dict[str, str]:
    """Create or update the deployments of `OWN_FLOWS`; safe to repeat.

    With `move` an existing deployment is put on `work_pool`, too; otherwise it stays on the pool that it has.
    Returns what was done by deployment: ``created``, ``updated`` or ``unchanged``. Raises Prefect's and httpx's errors.
    """
    return {own.flow.name: await _deploy(client, own, work_pool, move) for own in OWN_FLOWS}


async def _deploy(client: "PrefectClient", own: OwnFlow, work_pool: str, move: bool) -> str:
    code = _code_of(own)
    try:
        existing = await client.read_deployment_by_name(f"{own.flow.name}/{own.flow.name}")
    except ObjectNotFound:
        flow_id = await client.create_flow(own.flow)
        await _create(client, own, flow_id, code, work_pool)
        return "created"
    if move or existing.work_pool_name is None:
        code["work_pool_name"] = work_pool
    changes = {name: value for name, value in code.items() if getattr(existing, name) != value}
    if not changes:
        return "unchanged"
    await client.update_deployment(existing.id, DeploymentUpdate(**changes))
    return "updated"


def _code_of(own: OwnFlow) -> dict[str, Any]:
    """What a release of Spine decides: which code runs, and what it takes."""
    return {
        "entrypoint": own.entrypoint,
        "path": None,
        "pull_steps": PULL_STEPS,
        "version": version(DISTRIBUTION),
        "description": own.flow.description,
        "parameter_openapi_schema": parameter_schema(own.flow).model_dump_for_openapi(),
    }


async def _create(client: "PrefectClient", own: OwnFlow, flow_id: UUID, code: dict[str, Any], work_pool: str) -> None:
    await client.create_deployment(
        flow_id=flow_id,
        name=own.flow.name,
        tags=list(own.tags),
        parameters=own.parameters,
        schedules=own.schedules(),
        work_pool_name=work_pool,
        enforce_parameter_schema=True,
        **code,
    )
