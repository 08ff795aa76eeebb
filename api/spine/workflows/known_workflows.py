"""The deployments of workflows that this process has read, so that starting a run need not read them again.

A deployment is taken for current only while Prefect's event stream is open, which reports every change of its schema,
parameters, tags and code, and only for some seconds after it was read. In any doubt it is read.

Only a deployment with the name of its workflow is remembered. No other one can take its place while it exists.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from spine.auth.domains import Domains
from spine.background import repeat, stop_stream
from spine.log_throttle import LogThrottle
from spine.prefect.client import Deployment, Prefect
from spine.prefect.events import EventsUnavailable, Kind, listen_to_deployments
from spine.workflows.deployments import find_workflow

# Bounds the harm of an event that is lost or late.
LONGEST_CURRENT = 5.0
# Prefect sends an event just before the change can be read, so what is read within this time may be older.
SECONDS_TO_SETTLE = 1.0
SECONDS_AFTER_AN_ERROR = 3.0
SECONDS_TO_STOP = 0.15
MOST_KNOWN = 10_000


@dataclass(frozen=True)
class _Read:
    deployment: Deployment
    began: float


class KnownWorkflows:
    """Make one for each process."""

    def __init__(self) -> None:
        self._reads: dict[str, _Read] = {}
        self._changed: dict[UUID, float] = {}
        self._open_since: float | None = None
        self._log_throttle = LogThrottle("known_workflows")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen to Prefect for as long as the block lasts; without that, nothing is taken for current."""
        listening = asyncio.create_task(repeat(self._listen, self._log_throttle, SECONDS_AFTER_AN_ERROR))
        try:
            yield
        finally:
            await stop_stream(listening, SECONDS_TO_STOP)

    async def find(self, prefect: Prefect, domains: Domains, workflow_name: str) -> Deployment:
        """The deployment that a workflow runs on, as Prefect has it now. Raises as `find_workflow` does."""
        began = time.monotonic()
        deployment = await find_workflow(prefect, domains, workflow_name)
        if deployment.name == workflow_name:
            if len(self._reads) >= MOST_KNOWN:
                self._reads.clear()
            self._reads[workflow_name] = _Read(deployment, began)
        return deployment

    def current(self, workflow_name: str) -> Deployment | None:
        """The deployment of a workflow if nothing about it has changed since it was read; None in any doubt."""
        read = self._reads.get(workflow_name)
        if read is None or self._open_since is None or time.monotonic() - read.began > LONGEST_CURRENT:
            return None
        last_change = max(self._open_since, self._changed.get(read.deployment.id, 0.0))
        return read.deployment if read.began - last_change > SECONDS_TO_SETTLE else None

    def id_of(self, workflow_name: str) -> UUID | None:
        """The id of the deployment of a workflow, which it keeps until it is deleted; None if it was never read."""
        read = self._reads.get(workflow_name)
        return read.deployment.id if read else None

    def forget(self, workflow_name: str) -> None:
        """Read the deployment of this workflow the next time, because Prefect has answered otherwise than expected."""
        self._reads.pop(workflow_name, None)

    async def _listen(self) -> None:
        try:
            async with aclosing(listen_to_deployments()) as events:
                async for event in events:
                    if event.kind is Kind.OPENED:
                        self._open_since = time.monotonic()
                    elif event.deployment_id is not None:
                        self._note_change(event.deployment_id)
        except EventsUnavailable:
            # The follower logs it. Here it costs no more than a read for each trigger.
            self._open_since = None
            await asyncio.sleep(SECONDS_AFTER_AN_ERROR)
        finally:
            self._open_since = None

    def _note_change(self, deployment_id: UUID) -> None:
        now = time.monotonic()
        if len(self._changed) >= MOST_KNOWN:
            # Older changes than this cannot matter to what is current.
            self._changed = {one: at for one, at in self._changed.items() if now - at < 2 * LONGEST_CURRENT}
        self._changed[deployment_id] = now
