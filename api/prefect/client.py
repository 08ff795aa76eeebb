"""One shared client for Prefect's REST API, with Prefect's errors translated and every wait bounded.

The methods give Prefect's own models back; filters are the JSON that Prefect's `/filter` routes take (see `filters`).
Creations always carry an idempotency key, so every call here may be repeated after a dropped connection, which
Prefect's client does by itself within the deadline.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from typing import Any, Literal, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import Flow, FlowRun, Log, State, StateType, TaskRun, TaskRunResult, Worker
from prefect.client.schemas.responses import DeploymentResponse, OrchestrationResult, SetStateStatus
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import get_current_settings
from prefect.states import to_state_create
from pydantic import TypeAdapter, ValidationError

from api.errors import BadRequest, Conflict, NotFound, PrefectUnavailable, SpineError
from api.prefect.filters import Json, RunFilter

# Prefect's list routes return at most this many rows for one call.
MOST_ROWS = 200

UNKNOWN_SHAPE = "Prefect's API answered in a shape that Spine does not know; is it a version that Spine supports?"

Model = TypeVar("Model")
Object = TypeVar("Object", Flow, FlowRun, TaskRun, DeploymentResponse)

_FLOWS = TypeAdapter(list[Flow])
_FLOW_RUNS = TypeAdapter(list[FlowRun])
_TASK_RUNS = TypeAdapter(list[TaskRun])
_DEPLOYMENTS = TypeAdapter(list[DeploymentResponse])
_LOGS = TypeAdapter(list[Log])
_WORKERS = TypeAdapter(list[Worker])


class Prefect:
    """Prefect's API as Spine uses it; make one with `connect` and share it."""

    def __init__(self, client: PrefectClient, deadline_seconds: float) -> None:
        self._client = client
        self._deadline_seconds = deadline_seconds
        self._ends_at: float | None = None
        # Prefect on SQLite answers creations that come at once with "database is locked", and its client then waits
        # for seconds: ten at once took 7 s, ten in turn 0.7 s.
        self._creating = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def connect(cls, deadline_seconds: float) -> AsyncIterator["Prefect"]:
        """A door to the API that `PREFECT_API_URL` names; entering makes no call yet.

        Raises `ValueError` when the variable is not set: Prefect would start a server of its own otherwise.
        """
        if get_current_settings().api.url is None:
            raise ValueError("PREFECT_API_URL is not set; it names the Prefect API that Spine speaks to")
        async with get_client() as client:
            yield cls(client, deadline_seconds)

    def for_one_request(self) -> "Prefect":
        """This door with one deadline over all calls that follow, so that several slow ones do not add up."""
        door = copy(self)
        door._ends_at = asyncio.get_running_loop().time() + self._deadline_seconds
        return door

    @property
    def ui_url(self) -> str | None:
        """Where people open Prefect's UI, without a slash at the end."""
        url = get_current_settings().ui_url
        return url.rstrip("/") if url else None

    async def check(self) -> None:
        """Ask Prefect whether it is up. Raises `PrefectUnavailable`."""
        await self._request("GET", "/health")

    # Runs

    async def count_runs(self, run_filter: RunFilter) -> int:
        """How many flow runs fit."""
        return int((await self._request("POST", "/flow_runs/count", run_filter.to_json())).json())

    async def list_runs(
        self, run_filter: RunFilter, sort: str, offset: int = 0, limit: int = MOST_ROWS
    ) -> list[FlowRun]:
        """Flow runs that fit, in Prefect's `sort`, which does not order equal times."""
        return await self._page("/flow_runs/filter", _FLOW_RUNS, run_filter.to_json(), sort, offset, limit)

    async def read_run(self, run_id: UUID) -> FlowRun:
        """One flow run. Raises `NotFound`."""
        return await self._object(f"/flow_runs/{run_id}", FlowRun)

    async def child_runs(self, parent_run_ids: Sequence[UUID]) -> list[FlowRun]:
        """All flow runs that these runs started as their children."""
        of_parents = {"flow_runs": {"parent_flow_run_id": {"any_": _texts(parent_run_ids)}}}
        return await self._all("/flow_runs/filter", _FLOW_RUNS, of_parents, "ID_DESC")

    async def create_run(
        self, deployment_id: UUID, *, parameters: Json, tags: list[str], labels: Mapping[str, str], idempotency_key: str
    ) -> FlowRun:
        """Start a run of a deployment; a repeat with the same key gives the same run.

        Raises `NotFound` when the deployment is gone and `BadRequest` when Prefect refuses the parameters.
        """
        async with self._translated(conflict=BadRequest), self._creating:
            return await self._client.create_flow_run_from_deployment(
                deployment_id,
                parameters=parameters,
                tags=tags,
                labels=dict(labels),
                idempotency_key=idempotency_key,
            )

    async def set_run_state(self, run_id: UUID, state: State[Any]) -> OrchestrationResult[Any]:
        """Propose a state under Prefect's own rules (never forced) and tell what Prefect made of it."""
        async with self._translated():
            return await self._client.set_flow_run_state(run_id, state)

    # Task runs and logs

    async def count_task_runs(self, run_ids: Sequence[UUID]) -> dict[UUID, int]:
        """How many task runs each run has, without those that stand for a child flow run; at most 200 runs."""
        response = await self._request("POST", "/ui/flow_runs/count-task-runs", {"flow_run_ids": _texts(run_ids)})
        return {UUID(run_id): count for run_id, count in response.json().items()}

    async def task_runs(self, run_ids: Sequence[UUID], task_filter: Json | None = None) -> list[TaskRun]:
        """All task runs of these runs, every attempt of each."""
        wanted: Json = {"flow_runs": {"id": {"any_": _texts(run_ids)}}}
        if task_filter:
            wanted["task_runs"] = task_filter
        return await self._all("/task_runs/filter", _TASK_RUNS, wanted, "ID_DESC")

    async def read_task_run(self, task_run_id: UUID) -> TaskRun:
        """One task run. Raises `NotFound`."""
        return await self._object(f"/task_runs/{task_run_id}", TaskRun)

    async def force_task_run_state(self, task_run_id: UUID, state: State[Any]) -> None:
        """Put a task run into a state past Prefect's rules, which have no way back from COMPLETED."""
        body = {"state": to_state_create(state).model_dump(mode="json"), "force": True}
        await self._request("POST", f"/task_runs/{task_run_id}/set_state", body)

    async def error_logs(self, run_id: UUID) -> list[Log]:
        """The newest log records at ERROR or above of a run and its task runs, newest first, at most 200."""
        wanted = {"logs": {"flow_run_id": {"any_": [str(run_id)]}, "level": {"ge_": 40}}}
        return await self._page("/logs/filter", _LOGS, wanted, "TIMESTAMP_DESC", 0, MOST_ROWS)

    # Flows and deployments

    async def flows_by_id(self, flow_ids: Sequence[UUID]) -> dict[UUID, Flow]:
        """The flows with these ids."""
        if not flow_ids:
            return {}
        flows = await self._all("/flows/filter", _FLOWS, {"flows": {"id": {"any_": _texts(flow_ids)}}}, "NAME_ASC")
        return {flow.id: flow for flow in flows}

    async def find_flow(self, name: str) -> Flow | None:
        """The flow with this name, if there is one."""
        found = await self._page("/flows/filter", _FLOWS, {"flows": {"name": {"any_": [name]}}}, "NAME_ASC", 0, 1)
        return found[0] if found else None

    async def all_flows(self) -> list[Flow]:
        """All flows, by name."""
        return await self._all("/flows/filter", _FLOWS, {}, "NAME_ASC")

    async def deployments(self, wanted: Json) -> list[DeploymentResponse]:
        """All deployments that fit `wanted` (`flows`, `deployments` as in Prefect's filter route), newest first."""
        return await self._all("/deployments/filter", _DEPLOYMENTS, wanted, "CREATED_DESC")

    async def deployments_by_id(self, deployment_ids: Sequence[UUID]) -> dict[UUID, DeploymentResponse]:
        """The deployments with these ids that still exist."""
        if not deployment_ids:
            return {}
        found = await self.deployments({"deployments": {"id": {"any_": _texts(deployment_ids)}}})
        return {deployment.id: deployment for deployment in found}

    # Infrastructure

    async def online_workers(self, work_pool: str) -> list[Worker]:
        """The workers of a pool that Prefect has heard from lately. Raises `NotFound` without such a pool."""
        response = await self._request("POST", f"/work_pools/{work_pool}/workers/filter", {})
        return [worker for worker in _parse(_WORKERS, response) if worker.status == "ONLINE"]

    async def read_block_document(self, block_id: UUID) -> Any:
        """A block document with its secrets, to open the storage that it describes. Raises `NotFound`."""
        async with self._translated():
            return await self._client.read_block_document(block_id, include_secrets=True)

    # The one way out

    async def _all(self, path: str, adapter: TypeAdapter[list[Object]], wanted: Json, sort: str) -> list[Object]:
        """Every row of a list route, page by page; `sort` must leave no ties, or pages could overlap."""
        rows: dict[UUID, Object] = {}
        offset = 0
        while True:
            page = await self._page(path, adapter, wanted, sort, offset, MOST_ROWS)
            # Rows that are added meanwhile push others onto the next page, where they are met once more.
            rows |= {row.id: row for row in page}
            if len(page) < MOST_ROWS:
                return list(rows.values())
            offset += MOST_ROWS

    async def _page(
        self, path: str, adapter: TypeAdapter[list[Model]], wanted: Json, sort: str, offset: int, limit: int
    ) -> list[Model]:
        response = await self._request("POST", path, {**wanted, "sort": sort, "offset": offset, "limit": limit})
        return _parse(adapter, response)

    async def _object(self, path: str, model: type[Object]) -> Object:
        """One object by its path. Raises `NotFound`."""
        return _parse(TypeAdapter(model), await self._request("GET", path))

    async def _request(self, method: Literal["GET", "POST"], path: str, body: Json | None = None) -> httpx.Response:
        async with self._translated():
            # Prefect types the paths that it documents; the routes of its UI are not among them.
            return await self._client.request(method, path, json=body)  # type: ignore[arg-type]

    @asynccontextmanager
    async def _translated(self, conflict: type[SpineError] = Conflict) -> AsyncIterator[None]:
        """Bound the wait and translate what Prefect's client raises into Spine's errors."""
        try:
            now = asyncio.get_running_loop().time()
            async with asyncio.timeout_at(self._ends_at or now + self._deadline_seconds):
                yield
        except (TimeoutError, httpx.TransportError) as error:
            raise PrefectUnavailable("Prefect's API is out of reach; try again in a few seconds.") from error
        except ObjectNotFound as error:
            raise NotFound("Prefect has no such object.") from error
        except PrefectHTTPStatusError as error:
            raise _translate_status(error, conflict) from error
        except ValidationError as error:
            raise PrefectUnavailable(UNKNOWN_SHAPE) from error


def _parse(adapter: TypeAdapter[Model], response: httpx.Response) -> Model:
    try:
        return adapter.validate_json(response.content)
    except ValidationError as error:
        raise PrefectUnavailable(UNKNOWN_SHAPE) from error


def _translate_status(error: PrefectHTTPStatusError, conflict: type[SpineError]) -> SpineError:
    status = error.response.status_code
    if status == httpx.codes.NOT_FOUND:
        return NotFound("Prefect has no such object.")
    if status == httpx.codes.CONFLICT:
        return conflict(_reason(error.response))
    if status in (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY):
        return BadRequest(f"Prefect refuses this: {_reason(error.response)}")
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return PrefectUnavailable("Prefect's API refuses the credentials that Spine was given.")
    return PrefectUnavailable(f"Prefect's API answered with status {status}; try again in a few seconds.")


def _reason(response: httpx.Response) -> str:
    try:
        answer = response.json()
    except ValueError:
        return f"status {response.status_code}"
    if not isinstance(answer, dict):
        return f"status {response.status_code}"
    problems = answer.get("exception_detail")
    if isinstance(problems, list):
        # Each problem also carries the offending input, which may be large or a secret.
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems)[:500]
    return str(answer.get("detail") or answer.get("exception_message") or f"status {response.status_code}")[:500]


def _texts(ids: Sequence[UUID]) -> list[str]:
    return [str(one) for one in ids]


__all__ = [
    "MOST_ROWS",
    "DeploymentResponse",
    "Flow",
    "FlowRun",
    "Log",
    "OrchestrationResult",
    "Prefect",
    "SetStateStatus",
    "State",
    "StateType",
    "TaskRun",
    "TaskRunResult",
]
