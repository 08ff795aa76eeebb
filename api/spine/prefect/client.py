"""The only client of Prefect's REST API; its models are Prefect's own.

Filters are the JSON of Prefect's `/filter` routes (see `filters`).
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import Flow, FlowRun, Log, State, StateType, TaskRun, TaskRunResult
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus
from prefect.states import to_state_create
from pydantic import BaseModel, TypeAdapter

from spine.errors import BadRequest, Conflict
from spine.prefect.around import Rows
from spine.prefect.deployments import Deployment, DeploymentCalls, ScheduleRow
from spine.prefect.events import FINAL_STATES, FLOW_RUN_PREFIX, MOST_EVENTS
from spine.prefect.filters import Json, RunFilter
from spine.prefect.run_creation import RunCreation
from spine.prefect.transport import MOST_ROWS, Counted, parse, texts
from spine.prefect.workers import WorkerCalls
from spine.tracing import run_labels

# Prefect deletes at most this many runs in one call.
MOST_DELETED = 50

_FLOW_RUN = TypeAdapter(FlowRun)
_FLOWS = TypeAdapter(list[Flow])
_FLOW_RUNS = TypeAdapter(list[FlowRun])
_COUNTED_RUNS = (_FLOW_RUNS, TypeAdapter(Counted[FlowRun]))
_TASK_RUNS = TypeAdapter(list[TaskRun])
_LOGS = TypeAdapter(list[Log])


class Creator(BaseModel):
    """Who or what made a run; for a planned run the id is that of its schedule."""

    id: UUID | None = None


class DueRun(BaseModel):
    """A run as far as when it is due and for which schedule, which takes a tenth of the time to read."""

    id: UUID
    deployment_id: UUID | None = None
    expected_start_time: datetime | None = None
    created_by: Creator | None = None


class _Created(BaseModel):
    """What became of one run of several; without an id it was not created."""

    flow_run_id: UUID | None = None


class _CreatedRuns(BaseModel):
    """The runs that were created in one request, in its order."""

    results: list[_Created]


_CREATED = TypeAdapter(_CreatedRuns)
_DUE_RUNS = TypeAdapter(list[DueRun])


class Prefect(DeploymentCalls, WorkerCalls):
    """Prefect's API. Make one with `connect` and share it."""

    def __init__(self, client: PrefectClient, deadline_seconds: float) -> None:
        super().__init__(client, deadline_seconds)
        # Requests share it: each sends within a deadline of its own, also for others.
        self._creation = RunCreation(self._create_one, self._create_many)

    # Runs

    async def count_runs(self, run_filter: RunFilter) -> int:
        """How many flow runs match."""
        return int((await self._request("POST", "/flow_runs/count", run_filter.to_json())).json())

    async def list_runs(
        self, run_filter: RunFilter, sort: str, offset: int = 0, limit: int = MOST_ROWS
    ) -> Rows[FlowRun]:
        """Flow runs that match, in Prefect's `sort`, which does not order equal times."""
        return await self._page("/flow_runs/filter", _FLOW_RUNS, run_filter.to_json(), sort, offset, limit)

    async def due_runs(self, run_filter: RunFilter, limit: int) -> Rows[DueRun]:
        """The flow runs that match and are due first, in order of that time."""
        return await self._page(
            "/flow_runs/filter", _DUE_RUNS, run_filter.to_json(), "EXPECTED_START_TIME_ASC", 0, limit
        )

    async def first_runs(self, run_filter: RunFilter, sort: str, limit: int) -> tuple[Rows[FlowRun], int]:
        """The first flow runs that match, in Prefect's `sort`, and how many match, from one call."""
        return await self._counted_page("/flow_runs", _COUNTED_RUNS, run_filter.to_json(), sort, 1, limit)

    async def all_runs(self, run_filter: RunFilter) -> list[FlowRun]:
        """Every flow run that matches, once, also if up to half a page of rows stop matching between two requests."""
        found: dict[UUID, FlowRun] = {}
        offset = 0
        while True:
            page = await self.list_runs(run_filter, "ID_DESC", offset)
            found |= {run.id: run for run in page}
            if page.held < MOST_ROWS:
                return list(found.values())
            # Rows that stop matching move later rows forward, so each page overlaps half of the one before.
            offset += MOST_ROWS // 2

    async def runs_with_new_final_state(self, since: datetime) -> set[UUID]:
        """The runs that changed from one final state to another since then; their end time stays the same in Prefect.

        Prefect stores the events of such changes some seconds later, and keeps them for a week by default.
        """
        runs: set[UUID] = set()
        wanted = {
            "event": {"prefix": [FLOW_RUN_PREFIX]},
            "resource": {"labels": {"prefect.state-type": sorted(FINAL_STATES)}},
        }
        until: datetime | None = None
        while True:
            occurred = {"since": since.isoformat(), **({"until": until.isoformat()} if until else {})}
            events = await self._events({**wanted, "occurred": occurred})
            runs |= {event.run_id for event in events if event.ended_before}
            if len(events) < MOST_EVENTS:
                return runs
            # Newest first: the next page ends where this one begins, or just before if it would be the same page.
            oldest = events[-1].occurred
            until = oldest if oldest != until else oldest - timedelta(microseconds=1)

    async def read_run(self, run_id: UUID) -> FlowRun:
        """One flow run. Raises `NotFound`."""
        return await self._object(f"/flow_runs/{run_id}", FlowRun)

    async def child_runs(self, parent_run_ids: Sequence[UUID]) -> list[FlowRun]:
        """All child flow runs of these runs."""
        of_parents = {"flow_runs": {"parent_flow_run_id": {"any_": texts(parent_run_ids)}}}
        return await self._all("/flow_runs/filter", _FLOW_RUNS, of_parents, "ID_DESC")

    async def create_run(
        self, deployment_id: UUID, *, parameters: Json, tags: list[str], labels: Mapping[str, str], idempotency_key: str
    ) -> FlowRun:
        """Start a run of a deployment; repeating it with the same key returns the same run.

        Raises `NotFound` if the deployment does not exist and `BadRequest` if Prefect rejects the parameters.
        """
        body = {
            "parameters": parameters,
            "tags": tags,
            "labels": {**labels, **run_labels()},
            "idempotency_key": idempotency_key,
        }
        async with self._bounded(Conflict):
            return await self._creation.create(deployment_id, body)

    async def _create_one(self, deployment_id: UUID, body: Json) -> FlowRun:
        path = f"/deployments/{deployment_id}/create_flow_run"
        async with self._translated(f"POST {path}", conflict=BadRequest):
            # Prefect types its paths as templates.
            response = await self._client.request("POST", path, json=body)  # type: ignore[arg-type]
        return parse(_FLOW_RUN, response)

    async def _create_many(self, deployment_id: UUID, bodies: Sequence[Json]) -> list[FlowRun | None]:
        path = f"/deployments/{deployment_id}/create_flow_run/bulk"
        async with self._translated(f"POST {path}", conflict=BadRequest):
            response = await self._client.request("POST", path, json=list(bodies))  # type: ignore[arg-type]
        results = parse(_CREATED, response).results
        # The answer has no names, which Prefect chooses.
        created = RunFilter(runs={"id": {"any_": [str(one.flow_run_id) for one in results if one.flow_run_id]}})
        runs = {run.id: run for run in await self.list_runs(created, "ID_DESC", limit=len(bodies))}
        return [runs.get(one.flow_run_id) if one.flow_run_id else None for one in results]

    async def set_run_state(self, run_id: UUID, state: State[Any], *, force: bool = False) -> OrchestrationResult[Any]:
        """Propose a state, which Prefect's rules may change or reject; `force` sets it regardless of the rules."""
        async with self._translated("POST /flow_runs/{id}/set_state"):
            return await self._client.set_flow_run_state(run_id, state, force=force)

    async def run_states(self, run_id: UUID) -> list[State[Any]]:
        """All states that a run has been in, oldest first."""
        async with self._translated("GET /flow_run_states"):
            states = await self._client.read_flow_run_states(run_id)
        return sorted(states, key=lambda state: state.timestamp)

    async def delete_runs(self, run_ids: Sequence[UUID]) -> None:
        """Delete runs; runs that no longer exist are ignored."""
        for start in range(0, len(run_ids), MOST_DELETED):
            some = {"id": {"any_": texts(run_ids[start : start + MOST_DELETED])}}
            await self._request("POST", "/flow_runs/bulk_delete", {"flow_runs": some})

    # Task runs and logs

    async def count_task_runs(self, run_ids: Sequence[UUID]) -> dict[UUID, int]:
        """How many task runs each run has, without those that represent a child flow run; at most 200 runs."""
        response = await self._request("POST", "/ui/flow_runs/count-task-runs", {"flow_run_ids": texts(run_ids)})
        return {UUID(run_id): count for run_id, count in response.json().items()}

    async def task_runs(self, run_ids: Sequence[UUID], task_filter: Json | None = None) -> list[TaskRun]:
        """All task runs of these runs, of every attempt."""
        wanted: Json = {"flow_runs": {"id": {"any_": texts(run_ids)}}}
        if task_filter:
            wanted["task_runs"] = task_filter
        return await self._all("/task_runs/filter", _TASK_RUNS, wanted, "ID_DESC")

    async def read_task_run(self, task_run_id: UUID) -> TaskRun:
        """One task run. Raises `NotFound`."""
        return await self._object(f"/task_runs/{task_run_id}", TaskRun)

    async def force_task_run_state(self, task_run_id: UUID, state: State[Any]) -> None:
        """Set the state of a task run regardless of Prefect's rules, which allow no change from COMPLETED."""
        body = {"state": to_state_create(state).model_dump(mode="json"), "force": True}
        await self._request("POST", f"/task_runs/{task_run_id}/set_state", body)

    async def error_logs(self, *run_ids: UUID) -> list[Log]:
        """The newest log records at ERROR or above of runs and their task runs, newest first, at most 200."""
        wanted = {"logs": {"flow_run_id": {"any_": texts(run_ids)}, "level": {"ge_": 40}}}
        return await self._page("/logs/filter", _LOGS, wanted, "TIMESTAMP_DESC", 0, MOST_ROWS)

    # Flows

    async def flows_by_id(self, flow_ids: Sequence[UUID]) -> dict[UUID, Flow]:
        """The flows with these ids."""
        if not flow_ids:
            return {}
        flows = await self._all("/flows/filter", _FLOWS, {"flows": {"id": {"any_": texts(flow_ids)}}}, "NAME_ASC")
        return {flow.id: flow for flow in flows}

    async def flow_names(self, flow_ids: Collection[UUID]) -> dict[UUID, str]:
        """The names of flows, which never change, so each is read once; a deleted flow keeps its name here."""
        unknown = [one for one in set(flow_ids) if one not in self._flow_names]
        self._flow_names |= {flow_id: flow.name for flow_id, flow in (await self.flows_by_id(unknown)).items()}
        return {one: self._flow_names[one] for one in flow_ids if one in self._flow_names}

    async def find_flow(self, name: str) -> Flow | None:
        """The flow with this name, if there is one."""
        found = await self._page("/flows/filter", _FLOWS, {"flows": {"name": {"any_": [name]}}}, "NAME_ASC", 0, 1)
        return found[0] if found else None

    async def all_flows(self) -> list[Flow]:
        """All flows, by name."""
        return await self._all("/flows/filter", _FLOWS, {}, "NAME_ASC")

    # Blocks

    async def read_secret_block(self, name: str) -> Any:
        """The value of a Secret block. Raises `NotFound`."""
        async with self._translated("GET /block_types/slug/secret/block_documents/name"):
            block = await self._client.read_block_document_by_name(name, "secret", include_secrets=True)
        return block.data.get("value")

    async def read_block_document(self, block_id: UUID) -> Any:
        """A block document with its secrets, for opening the storage that it describes. Raises `NotFound`."""
        async with self._translated("GET /block_documents/{id}"):
            return await self._client.read_block_document(block_id, include_secrets=True)


__all__ = [
    "MOST_ROWS",
    "Deployment",
    "DueRun",
    "Flow",
    "FlowRun",
    "Log",
    "OrchestrationResult",
    "Prefect",
    "ScheduleRow",
    "SetStateStatus",
    "State",
    "StateType",
    "TaskRun",
    "TaskRunResult",
]
