"""Calls to Prefect through its client: the work pool, Spine's own deployments, and runs that a worker left open.

Prefect takes two seconds to import, so the functions import it themselves: the caller has children to start first.
"""

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import psutil

from spine.up.plan import WorkerType
from spine.up.processes import FLOW_RUN_ID, variable
from spine.up.waiting import UpError

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.objects import FlowRun, WorkPool
    from prefect.client.schemas.responses import OrchestrationResult

WORKER_LABEL = "prefect.worker.name"
_PAGE = 200
_WHY_CRASHED = "The worker was stopped or killed while this run was in progress; retry the run to complete it."


def is_healthy(api_url: str, *, trust_env: bool) -> bool:
    """Whether Prefect's API answers, through the environment's proxy if `trust_env`.

    A malformed URL is an `UpError`.
    """
    try:
        return answers(f"{api_url}/health", trust_env=trust_env)
    except (httpx.UnsupportedProtocol, httpx.InvalidURL):
        raise UpError(f"PREFECT_API_URL is {api_url!r}, which is not a URL such as http://host:4200/api.") from None


def answers(url: str, *, trust_env: bool) -> bool:
    """Whether this answers with success; raises httpx's errors about the URL itself."""
    try:
        return _http(trust_env).get(url).is_success
    except httpx.UnsupportedProtocol:
        raise
    except httpx.HTTPError:
        return False


@functools.cache
def _http(trust_env: bool) -> httpx.Client:
    # Each new client reads all certificates of the machine, for 20 ms.
    return httpx.Client(timeout=5.0, trust_env=trust_env)


def ensure_work_pool(api_url: str, name: str, worker: WorkerType) -> str:
    """Create the work pool unless it exists; an existing pool is never changed. Returns what was done.

    Workers of both types serve pools of either: they are configured with the same variables.
    """
    with _one_sentence(api_url):
        return asyncio.run(_ensure_work_pool(api_url, name, worker))


def deploy_to_prefect(work_pool: str, *, move: bool, template: dict[str, Any] | None = None) -> dict[str, str]:
    """Deploy Spine's own flows to the configured Prefect API; a missing work pool is created, with this template.

    Returns what was done by deployment. Raises `UpError`.
    """
    from prefect.settings import PREFECT_API_URL

    api_url = PREFECT_API_URL.value()
    if not api_url:
        raise UpError("No Prefect API is configured; set PREFECT_API_URL.")
    with _one_sentence(api_url):
        return asyncio.run(_deploy_to_prefect(api_url, work_pool, move, template))


def crash_interrupted_runs(api_url: str, pool: str, worker: str) -> list[str]:
    """Set the runs that `worker` left in PENDING or RUNNING to CRASHED and return their names.

    To be called only while no worker of that name runs. Runs of other pools and other workers are not touched, nor
    is a run whose process is still alive on this machine.
    """
    with _one_sentence(api_url):
        return asyncio.run(_crash_interrupted_runs(api_url, pool, worker))


def last_heartbeat(api_url: str, pool: str, worker: str) -> datetime | None:
    """When the worker last reported to Prefect; None when it never has."""
    with _one_sentence(api_url):
        return asyncio.run(_last_heartbeat(api_url, pool, worker))


async def _last_heartbeat(api_url: str, pool: str, worker: str) -> datetime | None:
    async with _client(api_url) as client:
        known = await client.read_workers_for_work_pool(pool)
    return next((one.last_heartbeat_time for one in known if one.name == worker), None)


async def _deploy_to_prefect(
    api_url: str, work_pool: str, move: bool, template: dict[str, Any] | None
) -> dict[str, str]:
    from spine.flows.deployment import deploy_own_flows

    async with _client(api_url) as client:
        await _read_or_create_pool(client, work_pool, WorkerType.SPINE, template)
        return await deploy_own_flows(client, work_pool, move=move)


async def _read_or_create_pool(
    client: "PrefectClient", name: str, worker: WorkerType, template: dict[str, Any] | None = None
) -> "WorkPool | None":
    """The work pool as it was; None if it was created just now, with this template or that of process workers."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        return await client.read_work_pool(name)
    except ObjectNotFound:
        template = template or ProcessWorker.get_default_base_job_template()
        new = WorkPoolCreate(name=name, type=worker.value, base_job_template=template)
        # Another process may have created the pool meanwhile.
        with contextlib.suppress(ObjectAlreadyExists):
            await client.create_work_pool(new)
    return None


async def _ensure_work_pool(api_url: str, name: str, worker: WorkerType) -> str:
    async with _client(api_url) as client:
        pool = await _read_or_create_pool(client, name, worker)
    if pool is None:
        return f"{name} (created)"
    if pool.type not in list(WorkerType):
        raise UpError(
            f"The work pool {name!r} is of type {pool.type!r}, but spine up starts a {worker} worker; "
            "set SPINE_WORK_POOL to another pool."
        )
    return f"{name} (existing)"


async def _crash_interrupted_runs(api_url: str, pool: str, worker: str) -> list[str]:
    from prefect.client.schemas.objects import StateType
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    names = []
    async with _client(api_url) as client:
        try:
            runs = await _interrupted(client, pool, worker)
        except ObjectNotFound:
            return []
        for run in runs:
            # Not forced: Prefect refuses when the run has ended since, and releases its concurrency slots.
            with contextlib.suppress(ObjectNotFound):
                result: OrchestrationResult[Any] = await client.set_flow_run_state(
                    run.id, Crashed(message=_WHY_CRASHED)
                )
                if result.state is not None and result.state.type == StateType.CRASHED:
                    names.append(run.name)
    return names


async def _interrupted(client: "PrefectClient", pool: str, worker: str) -> list["FlowRun"]:
    """The open runs of our worker in our pool, with the subflow runs that ran inside their processes."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

    open_runs = await _all_runs(client, _in_progress(FlowRunFilter()), pool)
    if not open_runs:
        return []
    workers = {known.name for known in await client.read_workers_for_work_pool(pool)}
    alive = _living_flow_runs()
    found = [run for run in open_runs if _is_ours(run, worker, workers) and str(run.id) not in alive]
    parents = [run.id for run in found]
    while parents:
        inside = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=parents))
        subflows = [run for run in await _all_runs(client, _in_progress(inside)) if run.deployment_id is None]
        found += subflows
        parents = [run.id for run in subflows]
    return found


def _is_ours(run: "FlowRun", worker: str, workers: set[str]) -> bool:
    if WORKER_LABEL in run.labels:
        return run.labels[WORKER_LABEL] == worker
    # A worker labels a run a moment after it has taken it. Until then it is ours only if there is no other worker.
    return workers <= {worker}


def _in_progress(flow_run: "FlowRunFilter") -> "FlowRunFilter":
    from prefect.client.schemas.filters import FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType

    types = FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING])
    return flow_run.model_copy(update={"state": FlowRunFilterState(type=types)})


async def _all_runs(client: "PrefectClient", which: "FlowRunFilter", pool: str | None = None) -> list["FlowRun"]:
    from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName

    in_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])) if pool else None
    found: dict[UUID, FlowRun] = {}
    offset = 0
    while True:
        page = await client.read_flow_runs(flow_run_filter=which, work_pool_filter=in_pool, limit=_PAGE, offset=offset)
        found |= {run.id: run for run in page}
        if len(page) < _PAGE:
            return list(found.values())
        offset += _PAGE


def _living_flow_runs() -> set[str | None]:
    return {variable(process, FLOW_RUN_ID) for process in psutil.process_iter()}


@contextlib.asynccontextmanager
async def _client(api_url: str) -> AsyncIterator["PrefectClient"]:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    # Settings are read when Prefect is first imported, which can be before this start chose the URL.
    credential = os.environ.get("PREFECT_API_AUTH_STRING")
    given = {PREFECT_API_URL: api_url, **({PREFECT_API_AUTH_STRING: credential} if credential else {})}
    with temporary_settings(given):
        async with get_client() as client:
            yield client


@contextlib.contextmanager
def _one_sentence(api_url: str) -> Iterator[None]:
    from prefect.exceptions import PrefectException

    try:
        yield
    except httpx.HTTPStatusError as error:
        answer = error.response
        raise UpError(f"Prefect at {api_url} answered {answer.status_code} to {answer.request.url.path}.") from error
    except (httpx.HTTPError, PrefectException, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UpError(f"Prefect at {api_url} could not be used: {reason}.") from error
