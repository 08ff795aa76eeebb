"""Workers and their pools, and the signs of life of workers and runs that Prefect has stored."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias
from urllib.parse import quote
from uuid import UUID

import httpx
from prefect.client.schemas.objects import Worker
from pydantic import BaseModel, TypeAdapter

from spine.prefect.events import FLOW_RUN_PREFIX, MOST_EVENTS, WORKER_FALLBACK, EventPage, StoredEvent
from spine.prefect.filters import Json
from spine.prefect.transport import Transport, parse

_EVENTS = TypeAdapter(EventPage)
_WORKERS = TypeAdapter(list[Worker])


class _Counted(BaseModel):
    value: str
    count: int


_COUNTS = TypeAdapter(list[_Counted])
# Events of many runs are read side by side, but not by so many requests that others would wait.
_MOST_AT_ONCE = 8

# A worker by the name of its pool and its own.
WorkerKey: TypeAlias = tuple[str, str]


# A run, and how its worker names the process that it started for the run: `infrastructure_pid` of the run.
Execution: TypeAlias = tuple[UUID, str]


@dataclass(frozen=True)
class Pool:
    """A work pool: its type and all its workers, those that are gone, too."""

    type: str
    workers: list[Worker]


class WorkerCalls(Transport):
    """The requests about workers, and about what runs report while they run."""

    async def work_pool_type(self, work_pool: str) -> str:
        """The type of a work pool. Raises `NotFound`."""
        return str((await self._request("GET", f"/work_pools/{quote(work_pool, safe='')}")).json()["type"])

    async def online_workers(self, work_pool: str) -> list[Worker]:
        """The workers of a pool that sent a heartbeat recently. Raises `NotFound` if there is no such pool."""
        return [worker for worker in parse(_WORKERS, await self._workers(work_pool)) if worker.status == "ONLINE"]

    async def pool(self, work_pool: str) -> Pool:
        """A work pool. Raises `NotFound`."""
        type_, response = await asyncio.gather(self.work_pool_type(work_pool), self._workers(work_pool))
        return Pool(type_, parse(_WORKERS, response))

    async def _workers(self, work_pool: str) -> httpx.Response:
        return await self._request("POST", f"/work_pools/{quote(work_pool, safe='')}/workers/filter", {})

    async def server_time(self) -> datetime:
        """What Prefect's server takes for the present time, exact to a second."""
        response = await self._request("GET", "/health")
        try:
            return parsedate_to_datetime(response.headers["date"]).astimezone(UTC)
        except (KeyError, ValueError):
            # A proxy has left it out. Then both clocks have to agree.
            return datetime.now(UTC)

    async def worker_fallbacks(self, work_pool: str, since: datetime) -> dict[str, str]:
        """The workers of a pool that have since then started runs in Prefect's own way, with their newest reasons."""
        events = await self._events(
            {
                "event": {"name": [WORKER_FALLBACK]},
                "resource": {"labels": {"spine.work-pool": [work_pool]}},
                "occurred": {"since": since.isoformat()},
            }
        )
        # Newest first: the newest of each worker stays.
        return {
            event.resource.get("prefect.resource.name", "a worker"): str(event.payload.get("reason", "unknown"))
            for event in reversed(events)
        }

    async def worker_starts(self, since: datetime) -> dict[WorkerKey, datetime]:
        """The workers that were started since then, with the time of their last start, by the server's clock."""
        occurred = {"since": since.isoformat()}
        events = await self._events({"event": {"name": ["prefect.worker.started"]}, "occurred": occurred})
        return {
            (event.related_name("work-pool"), event.resource.get("prefect.resource.name", "")): event.received
            for event in reversed(events)
        }

    async def heartbeats(self, run_ids: Collection[UUID]) -> dict[UUID, list[datetime]]:
        """When the server received the last two heartbeats of each of these runs, newest first; fewer if there are."""
        turn = asyncio.Semaphore(_MOST_AT_ONCE)

        async def of(run_id: UUID) -> list[datetime]:
            async with turn:
                return [event.received for event in await self._events(_heartbeats_of([run_id]), limit=2)]

        return dict(zip(run_ids, await asyncio.gather(*map(of, run_ids)), strict=True))

    async def runs_with_heartbeat(self, run_ids: Collection[UUID], since: datetime) -> set[UUID]:
        """Those of these runs that have emitted a heartbeat since then, from one call."""
        if not run_ids:
            return set()
        wanted = {**_heartbeats_of(run_ids), "occurred": {"since": since.isoformat()}}
        found = parse(_COUNTS, await self._request("POST", "/events/count-by/resource", {"filter": wanted}))
        return {UUID(one.value.removeprefix(FLOW_RUN_PREFIX)) for one in found}

    async def executions(self, run_ids: Sequence[UUID], since: datetime) -> set[Execution]:
        """The processes of these runs of which workers have reported the end since then."""
        found: set[Execution] = set()
        for start in range(0, len(run_ids), MOST_EVENTS):
            related = {"id": [f"{FLOW_RUN_PREFIX}{run_id}" for run_id in run_ids[start : start + MOST_EVENTS]]}
            wanted = {"event": {"name": ["prefect.worker.executed-flow-run"]}, "related": related}
            events = await self._events({**wanted, "occurred": {"since": since.isoformat()}})
            found |= {execution for event in events if (execution := _execution_in(event))}
        return found

    async def _events(self, wanted: Json, limit: int = MOST_EVENTS) -> list[StoredEvent]:
        """The newest stored events that match, newest first."""
        return parse(_EVENTS, await self._request("POST", "/events/filter", {"filter": wanted, "limit": limit})).events


def _heartbeats_of(run_ids: Collection[UUID]) -> Json:
    """The filter of events that finds the heartbeats of these runs."""
    ids = [f"{FLOW_RUN_PREFIX}{run_id}" for run_id in run_ids]
    return {"event": {"name": [f"{FLOW_RUN_PREFIX}heartbeat"]}, "resource": {"id": ids}}


def _execution_in(event: StoredEvent) -> Execution | None:
    run = next((one for one in event.related if one.get("prefect.resource.role") == "flow-run"), {})
    try:
        run_id = UUID(run["prefect.resource.id"].removeprefix(FLOW_RUN_PREFIX))
        return run_id, run["prefect.infrastructure.identifier"]
    except (KeyError, ValueError):
        return None
