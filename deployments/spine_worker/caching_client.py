"""A client that does not ask twice for what cannot have changed in between."""

import asyncio
import time
from collections import OrderedDict
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import Flow
from prefect.client.schemas.responses import DeploymentResponse

_FLOWS = 1_000
# Prefect's worker reads a deployment twice for each run, some milliseconds apart.
_SECONDS_FOR_DEPLOYMENTS = 0.5


class RememberingClient:
    """Prefect's client, except that a flow is read once, and a deployment once for each submission of runs."""

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._flows: OrderedDict[UUID, Flow] = OrderedDict()
        self._deployments: dict[UUID, tuple[float, asyncio.Task[DeploymentResponse]]] = {}
        self._work_came = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def read_flow(self, flow_id: UUID) -> Flow:
        """A flow, which has an id and a name that stay."""
        if flow_id not in self._flows:
            self._flows[flow_id] = await self._client.read_flow(flow_id)
            if len(self._flows) > _FLOWS:
                self._flows.popitem(last=False)
        return self._flows[flow_id]

    def work_has_come(self) -> None:
        """Runs have been named that were not known: they are owed deployments that are read from now on."""
        self._work_came = time.monotonic()

    async def read_deployment(self, deployment_id: UUID) -> DeploymentResponse:
        """A deployment as it was half a second ago at most, and since work has come."""
        now = time.monotonic()
        since = max(self._work_came, now - _SECONDS_FOR_DEPLOYMENTS)
        known = self._deployments.get(deployment_id)
        if known is None or known[0] < since or _has_failed(known[1]):
            self._deployments = {one: read for one, read in self._deployments.items() if read[0] >= since}
            reading = asyncio.create_task(self._client.read_deployment(deployment_id))
            known = self._deployments[deployment_id] = (now, reading)
        # It is read for all who wait; Prefect fills in each run's own variables.
        return (await asyncio.shield(known[1])).model_copy(deep=True)


def _has_failed(reading: "asyncio.Task[DeploymentResponse]") -> bool:
    return reading.done() and reading.exception() is not None
