"""A client that does not ask twice for what cannot have changed in between."""

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
        self._deployments: dict[UUID, tuple[float, DeploymentResponse]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def read_flow(self, flow_id: UUID) -> Flow:
        """A flow, which has an id and a name that stay."""
        if flow_id not in self._flows:
            self._flows[flow_id] = await self._client.read_flow(flow_id)
            if len(self._flows) > _FLOWS:
                self._flows.popitem(last=False)
        return self._flows[flow_id]

    async def read_deployment(self, deployment_id: UUID) -> DeploymentResponse:
        """A deployment as it was half a second ago at most."""
        now = time.monotonic()
        known = self._deployments.get(deployment_id)
        if known is None or now - known[0] > _SECONDS_FOR_DEPLOYMENTS:
            self._deployments = {
                one: read for one, read in self._deployments.items() if now - read[0] <= _SECONDS_FOR_DEPLOYMENTS
            }
            known = self._deployments[deployment_id] = (now, await self._client.read_deployment(deployment_id))
        # Prefect fills in the run's own variables.
        return known[1].model_copy(deep=True)
