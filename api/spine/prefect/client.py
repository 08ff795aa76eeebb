"""The only client of Prefect's REST API; its models are Prefect's own.

Filters are the JSON of Prefect's `/filter` routes (see `filters`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import Flow, FlowRun, Log, State, StateType, TaskRun, TaskRunResult, Worker
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus
from prefect.states import to_state_create
from pydantic import TypeAdapter

from spine.errors import BadRequest
from spine.prefect.deployments import Deployment, DeploymentCalls, ScheduleRow
from spine.prefect.events import FINAL_STATES, FLOW_RUN_PREFIX, MOST_EVENTS, EventPage
from spine.prefect.filters import Json, RunFilter
from spine.prefect.transport import MOST_ROWS, parse, texts

# Prefect deletes at most this many runs in one call.
MOST_DELETED = 50

_EVENTS = TypeAdapter(EventPage)
_FLOWS = TypeAdapter(list[Flow])
_FLOW_RUNS = TypeAdapter(list[FlowRun])
_TASK_RUNS = TypeAdapter(list[TaskRun])
_LOGS = TypeAdapter(list[Log])
_WORKERS = TypeAdapter(list[Worker])


class Prefect(DeploymentCalls):
    """Prefect's API. Make one with `connect` and share it."""

    # Runs

    async def count_runs(self, run_filter: RunFilter) -> int:
        """How many flow runs match."""
        return int((await self._request("POST", "/flow_runs/count", run_filter.to_json())).json())

    async def list_runs(
        self, run_filter: RunFilter, sort: str, offset: int = 0, limit: int = MOST_ROWS
    ) -> list[FlowRun]:
        """Flow runs that match, in Prefect's `sort`, which does not order equal times."""
        return await self._page("/flow_runs/filter", _FLOW_RUNS, run_filter.to_json(), sort, offset, limit)

    async def all_runs(self, run_filter: RunFilter) -> list[FlowRun]:
        """Every flow run that matches, once, also if up to half a page of rows stop matching between two requests."""
        found: dict[UUID, FlowRun] = {}
        offset = 0
        while True:
            page = await self.list_runs(run_filter, "ID_DESC", offset)
            found |= {run.id: run for run in page}
            if len(page) < MOST_ROWS:
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
            body = {"filter": {**wanted, "occurred": occurred}, "limit": MOST_EVENTS}
            events = parse(_EVENTS, await self._request("POST", "/events/filter", body)).events
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
        async with self._translated(conflict=BadRequest), self._creating:
            return await self._client.create_flow_run_from_deployment(
                deployment_id,
                parameters=parameters,
                tags=tags,
                labels=dict(labels),
                idempotency_key=idempotency_key,
            )

    async def set_run_state(self, run_id: UUID, state: State[Any], *, force: bool = False) -> OrchestrationResult[Any]:
        """Propose a state, which Prefect's rules may change or reject; `force` sets it regardless of the rules."""
        async with self._translated():
            return await self._client.set_flow_run_state(run_id, state, force=force)

    async def run_states(self, run_id: UUID) -> list[State[Any]]:
        """All states that a run has been in, oldest first."""
        async with self._translated():
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

    async def error_logs(self, run_id: UUID) -> list[Log]:
        """The newest log records at ERROR or above of a run and its task runs, newest first, at most 200."""
        wanted = {"logs": {"flow_run_id": {"any_": [str(run_id)]}, "level": {"ge_": 40}}}
        return await self._page("/logs/filter", _LOGS, wanted, "TIMESTAMP_DESC", 0, MOST_ROWS)

    # Flows

    async def flows_by_id(self, flow_ids: Sequence[UUID]) -> dict[UUID, Flow]:
        """The flows with these ids."""
        if not flow_ids:
            return {}
        flows = await self._all("/flows/filter", _FLOWS, {"flows": {"id": {"any_": texts(flow_ids)}}}, "NAME_ASC")
        return {flow.id: flow for flow in flows}

    async def find_flow(self, name: str) -> Flow | None:
        """The flow with this name, if there is one."""
        found = await self._page("/flows/filter", _FLOWS, {"flows": {"name": {"any_": [name]}}}, "NAME_ASC", 0, 1)
        return found[0] if found else None

    async def all_flows(self) -> list[Flow]:
        """All flows, by name."""
        return await self._all("/flows/filter", _FLOWS, {}, "NAME_ASC")

    # Infrastructure

    async def online_workers(self, work_pool: str) -> list[Worker]:
        """The workers of a pool that sent a heartbeat recently. Raises `NotFound` if there is no such pool."""
        response = await self._request("POST", f"/work_pools/{work_pool}/workers/filter", {})
        return [worker for worker in parse(_WORKERS, response) if worker.status == "ONLINE"]

    async def read_secret_block(self, name: str) -> Any:
        """The value of a Secret block. Raises `NotFound`."""
        async with self._translated():
            block = await self._client.read_block_document_by_name(name, "secret", include_secrets=True)
        return block.data.get("value")

    async def read_block_document(self, block_id: UUID) -> Any:
        """A block document with its secrets, for opening the storage that it describes. Raises `NotFound`."""
        async with self._translated():
            return await self._client.read_block_document(block_id, include_secrets=True)


__all__ = [
    "MOST_ROWS",
    "Deployment",
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
