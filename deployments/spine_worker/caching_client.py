"""A Prefect client that does not request again what cannot have changed in between."""

import asyncio
import time
from collections import OrderedDict
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import Flow
from prefect.client.schemas.responses import DeploymentResponse

_MOST_FLOWS = 1_000
# Prefect's worker reads a deployment twice for each run, some milliseconds apart.
_SECONDS_TO_CACHE_DEPLOYMENTS = 0.5


class CachingClient:
    """Prefect's client, except that it reads each flow once, and a deployment once for all runs that a poll returns."""

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._flows: OrderedDict[UUID, Flow] = OrderedDict()
        self._deployments: dict[UUID, tuple[float, asyncio.Task[DeploymentResponse]]] = {}
        self._expired_at = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def read_flow(self, flow_id: UUID) -> Flow:
        """A flow, whose id and name never change."""
        if flow_id not in self._flows:
            self._flows[flow_id] = await self._client.read_flow(flow_id)
            if len(self._flows) > _MOST_FLOWS:
                self._flows.popitem(last=False)
        return self._flows[flow_id]

    def expire_deployments(self) -> None:
        """Read all deployments again: new runs must not get a deployment that is older than they are."""
        self._expired_at = time.monotonic()

    async def read_deployment(self, deployment_id: UUID) -> DeploymentResponse:
        """A deployment that was read at most half a second ago, and since `expire_deployments`."""
        now = time.monotonic()
        since = max(self._expired_at, now - _SECONDS_TO_CACHE_DEPLOYMENTS)
        known = self._deployments.get(deployment_id)
        if known is None or known[0] < since or _has_failed(known[1]):
            self._deployments = {one: read for one, read in self._deployments.items() if read[0] >= since}
            reading = asyncio.create_task(self._client.read_deployment(deployment_id))
            known = self._deployments[deployment_id] = (now, reading)
        # Each caller gets a copy, because Prefect writes each run's own variables into it.
        return (await asyncio.shield(known[1])).model_copy(deep=True)


def _has_failed(reading: "asyncio.Task[DeploymentResponse]") -> bool:
    return reading.done() and reading.exception() is not None
