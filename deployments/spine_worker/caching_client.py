"""A Prefect client that does not request again what cannot have changed in between."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import Flow, ServerDefaultResultStorage
from prefect.client.schemas.responses import DeploymentResponse

# Names never change, and tags of flows hardly ever.
_SECONDS_TO_CACHE_FLOWS = 60.0
# Prefect's worker reads a deployment twice for each run, before and after it has claimed the run.
_SECONDS_TO_CACHE = 5.0
_STORAGE = "storage"


class CachingClient:
    """Prefect's client, except that it requests some things once for all runs that a poll returns.

    A flow is read once a minute, a deployment and the default storage of results once for each poll.
    """

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._reads: dict[UUID | str, tuple[float, asyncio.Task[Any]]] = {}
        self._expired_at = 0.0
        # Runs whose process stores its id itself.
        self.forked: set[UUID] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def read_flow(self, flow_id: UUID) -> Flow:
        """A flow that was read at most a minute ago."""
        since = time.monotonic() - _SECONDS_TO_CACHE_FLOWS
        found: Flow = await self._read(flow_id, partial(self._client.read_flow, flow_id), since)
        return found

    def expire(self) -> None:
        """Read all but flows again: new runs must not get a deployment that is older than they are."""
        self._expired_at = time.monotonic()

    def begin_to_read_storage(self) -> None:
        """Begin a read whose answer `read_server_default_result_storage` gives."""
        reading = asyncio.ensure_future(self.read_server_default_result_storage())
        # Whoever needs the answer gets the error, too.
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def read_deployment(self, deployment_id: UUID) -> DeploymentResponse:
        """A deployment that was read at most five seconds ago, and since `expire`."""
        read = partial(self._client.read_deployment, deployment_id)
        found: DeploymentResponse = await self._read(deployment_id, read, self._since)
        # Each caller gets a copy, because Prefect writes each run's own variables into it.
        return found.model_copy(deep=True)

    async def read_server_default_result_storage(self) -> ServerDefaultResultStorage:
        """Where the server stores results by default, read as recently as a deployment."""
        read = self._client.read_server_default_result_storage
        found: ServerDefaultResultStorage = await self._read(_STORAGE, read, self._since)
        return found

    async def update_flow_run(self, flow_run_id: UUID, **changes: Any) -> None:
        """Change a run, except for a process id that the process has stored."""
        if flow_run_id in self.forked and changes.keys() == {"infrastructure_pid"}:
            return
        await self._client.update_flow_run(flow_run_id, **changes)

    @property
    def _since(self) -> float:
        return max(self._expired_at, time.monotonic() - _SECONDS_TO_CACHE)

    async def _read(self, what: UUID | str, read: Callable[[], Coroutine[Any, Any, Any]], since: float) -> Any:
        """What was read since then, or is being read."""
        known = self._reads.get(what)
        if known is None or known[0] < since or _has_failed(known[1]):
            now = time.monotonic()
            oldest = now - _SECONDS_TO_CACHE_FLOWS
            self._reads = {one: reading for one, reading in self._reads.items() if reading[0] >= oldest}
            known = self._reads[what] = (now, asyncio.create_task(read()))
        return await asyncio.shield(known[1])


def _has_failed(reading: "asyncio.Task[Any]") -> bool:
    return reading.done() and reading.exception() is not None
