"""What the worker knows of a run, given to the process of the run, so that it need not request it again.

Prefect's engine reads the run, its flow, deployment, work queue and work pool, and twice where results are stored. The
worker has just read the same to start the run. The process id that the worker would store is stored by the process, in
the request with which the engine stores the version of the flow.
"""

import os
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import prefect.flow_engine
import prefect.results
from prefect.client.orchestration import PrefectClient, SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.events.related import RESOURCE_CACHE
from prefect.types._datetime import now

from spine_worker.forking.messages import Known

# Longer than a run can wait for the time for which it is scheduled. Child flows that begin later read again.
_SECONDS_TO_USE_STORAGE = 15.0


def use_known(known: Known) -> None:
    """Let Prefect's engine in this process use what is known."""
    for kind, key, identifier, name, tags in known.related:
        _relate(kind, key, identifier, name, tags)
    if known.storage:
        _use_storage(UUID(known.storage[0]) if known.storage[0] else None)
    if known.run is not None:
        _use_run(FlowRun.model_validate(known.run))


def _relate(kind: str, key: object, identifier: object, name: str, tags: list[str]) -> None:
    """Let events name this object."""
    related: Any = SimpleNamespace(id=identifier, name=name, tags=tags)
    RESOURCE_CACHE[f"{kind}.{key}"] = ({"kind": kind, "object": related}, now("UTC"))  # type: ignore[assignment]


def _use_storage(block_id: UUID | None) -> None:
    """Answer from what is known where results are stored, while that is recent."""
    until = time.monotonic() + _SECONDS_TO_USE_STORAGE
    read, read_async = (
        prefect.results._read_server_default_result_storage_block_id,
        prefect.results._aread_server_default_result_storage_block_id,
    )

    def read_known() -> UUID | None:
        return block_id if time.monotonic() < until else read()

    async def read_known_async() -> UUID | None:
        return block_id if time.monotonic() < until else await read_async()

    prefect.results._read_server_default_result_storage_block_id = read_known
    prefect.results._aread_server_default_result_storage_block_id = read_known_async


def _use_run(run: FlowRun) -> None:
    load = prefect.flow_engine.load_flow_run

    def load_flow_run(flow_run_id: UUID) -> FlowRun:
        return run if flow_run_id == run.id else load(flow_run_id)

    prefect.flow_engine.load_flow_run = load_flow_run
    pending = {run.id}
    # The engine of a synchronous flow uses one of these clients, that of an asynchronous flow the other.
    for client in (SyncPrefectClient, PrefectClient):
        client.update_flow_run = _with_process_id(client.update_flow_run, pending)  # type: ignore[method-assign]
    SyncPrefectClient.read_flow_run = _naming(SyncPrefectClient.read_flow_run)  # type: ignore[method-assign]
    PrefectClient.read_flow_run = _naming_async(PrefectClient.read_flow_run)  # type: ignore[method-assign]


def _with_process_id(update: Callable[..., Any], pending: set[UUID]) -> Callable[..., Any]:
    """Store the process id of each of these runs with its first update."""

    @wraps(update)
    def update_flow_run(client: Any, flow_run_id: UUID, *args: Any, **changes: Any) -> Any:
        if flow_run_id in pending:
            pending.discard(flow_run_id)
            changes.setdefault("infrastructure_pid", str(os.getpid()))
        return update(client, flow_run_id, *args, **changes)

    return update_flow_run


def _naming(read: Callable[..., FlowRun]) -> Callable[..., FlowRun]:
    @wraps(read)
    def read_flow_run(client: Any, flow_run_id: UUID) -> FlowRun:
        return _name_places(read(client, flow_run_id))

    return read_flow_run


def _naming_async(read: Callable[..., Awaitable[FlowRun]]) -> Callable[..., Any]:
    @wraps(read)
    async def read_flow_run(client: Any, flow_run_id: UUID) -> FlowRun:
        return _name_places(await read(client, flow_run_id))

    return read_flow_run


def _name_places(run: FlowRun) -> FlowRun:
    """Let events name the work queue and the work pool of a run, of which the run has all that events need."""
    if run.work_queue_id and run.work_queue_name:
        _relate("work-queue", run.work_queue_id, run.work_queue_id, run.work_queue_name, [])
    if run.work_pool_id and run.work_pool_name:
        _relate("work-pool", run.work_pool_name, run.work_pool_id, run.work_pool_name, [])
    return run
