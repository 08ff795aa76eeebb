"""Collects what the worker knows of a run for the run's process (`forking.messages.Known`)."""

from dataclasses import asdict
from typing import Any

from prefect.client.schemas.objects import Flow, FlowRun, State, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.settings import get_current_settings
from prefect.states import Pending
from prefect.workers.process import ProcessJobConfiguration

from spine_worker.caching_client import CachingClient
from spine_worker.forking.messages import Known, Related


def begin_to_collect(client: CachingClient) -> None:
    """Read where results are stored, while runs are claimed that will need it."""
    if _asks_server():
        client.begin_to_read_storage()


def _asks_server() -> bool:
    """Whether no setting says where results are stored."""
    return get_current_settings().results.default_storage_block is None


async def known_of(
    run: FlowRun, configuration: ProcessJobConfiguration, work_pool: WorkPool, client: CachingClient
) -> dict[str, Any]:
    """The fields of `Known` for a run that this worker has claimed."""
    objects = configuration._related_objects
    flow, deployment = objects.get("flow"), objects.get("deployment")
    related: list[Related] = []
    if isinstance(flow, Flow):
        related.append(("flow", str(run.flow_id), str(flow.id), flow.name, flow.tags))
    if isinstance(deployment, DeploymentResponse):
        which = str(deployment.id)
        related.append(("deployment", str(run.deployment_id), which, deployment.name, deployment.tags))
    return asdict(Known(_claimed(run, work_pool), related, await _storage(client)))


def _claimed(run: FlowRun, work_pool: WorkPool) -> dict[str, Any]:
    """The run as Prefect has it since the claim, in JSON."""
    state: State[Any] = Pending()
    now = {
        "state": state,
        "state_id": state.id,
        "state_type": state.type,
        "state_name": state.name,
        "next_scheduled_start_time": None,
        "work_pool_id": work_pool.id,
        "work_pool_name": work_pool.name,
    }
    fields = run.model_copy(update=now).model_dump(mode="json", exclude_unset=True, exclude={"parameters"})
    return {**fields, "parameters": run.parameters}


async def _storage(client: CachingClient) -> list[str | None]:
    """Where the server stores results by default; empty if a setting says it or the server does not."""
    if not _asks_server():
        return []
    try:
        block_id = (await client.read_server_default_result_storage()).default_result_storage_block_id
    except Exception:  # The run tries by itself, and goes on without an answer.
        return []
    return [str(block_id) if block_id else None]
