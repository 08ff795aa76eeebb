"""Prefect's event stream, which reports changes at once instead of at the next poll, and stored events."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from pydantic import BaseModel

from spine.errors import PrefectUnavailable

FLOW_RUN_PREFIX = "prefect.flow-run."
DEPLOYMENT_PREFIX = "prefect.deployment."
FINAL_STATES = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
# Prefect's route for stored events returns at most this many for one call.
MOST_EVENTS = 50

# Workers of type `spine` emit it while something keeps them from starting runs their own way.
WORKER_FALLBACK = "spine.worker.fallback"

_DEPLOYMENT = ("prefect.deployment.created", "prefect.deployment.updated", "prefect.deployment.deleted")


class EventsUnavailable(PrefectUnavailable):
    """The event stream is out of reach; Prefect's other routes may still work."""


class StateEvent(BaseModel):
    """The event that a flow run entered a state."""

    occurred: datetime
    resource: dict[str, str]
    payload: dict[str, Any] = {}

    @property
    def run_id(self) -> UUID:
        """The id of the flow run."""
        return UUID(self.resource["prefect.resource.id"].removeprefix(FLOW_RUN_PREFIX))

    @property
    def ended_before(self) -> bool:
        """Whether the run was in a final state before."""
        return (self.payload.get("initial_state") or {}).get("type") in FINAL_STATES


class StoredEvent(StateEvent):
    """An event of any kind, and when the server received it, by its own clock."""

    received: datetime
    related: list[dict[str, str]] = []

    def related_name(self, role: str) -> str:
        """The name of the related resource in this role; empty if there is none."""
        named = (one for one in self.related if one.get("prefect.resource.role") == role)
        return next(named, {}).get("prefect.resource.name", "")


class EventPage(BaseModel):
    """Stored events, newest first."""

    events: list[StoredEvent]


class Kind(StrEnum):
    """The kinds of events that Spine reacts to."""

    OPENED = "the stream is open; earlier events were missed"
    RUN_ENDED = "a run entered a final state"
    DEPLOYMENT_CHANGED = "a deployment was created, changed or deleted"


@dataclass(frozen=True)
class PrefectEvent:
    """An event in Prefect.

    `run_id` is set if a run changed from one final state to another, `deployment_id` if a deployment changed.
    """

    kind: Kind
    run_id: UUID | None = None
    deployment_id: UUID | None = None


def listen() -> AsyncGenerator[PrefectEvent, None]:
    """The events of runs and deployments, as they happen. An event may arrive just before its change can be read.

    Raises `EventsUnavailable` if the stream cannot be opened or is interrupted.
    """
    return _listen(EventNameFilter(prefix=[FLOW_RUN_PREFIX, DEPLOYMENT_PREFIX]))


def listen_to_deployments() -> AsyncGenerator[PrefectEvent, None]:
    """The same for the changes of deployments only."""
    return _listen(EventNameFilter(name=list(_DEPLOYMENT)))


async def _listen(names: EventNameFilter) -> AsyncGenerator[PrefectEvent, None]:
    wanted = EventFilter(event=names)
    try:
        async with get_events_subscriber(filter=wanted, reconnection_attempts=0) as stream:
            yield PrefectEvent(Kind.OPENED)
            async for event in stream:
                if event.event in _DEPLOYMENT:
                    deployment_id = UUID(event.resource.id.removeprefix(DEPLOYMENT_PREFIX))
                    yield PrefectEvent(Kind.DEPLOYMENT_CHANGED, deployment_id=deployment_id)
                elif event.resource.get("prefect.state-type") in FINAL_STATES:
                    yield _run_ended(event.resource.model_dump(), event.payload, event.occurred)
    except Exception as error:
        # The stream uses a web socket, an HTTP client and Prefect's own code, each with its own errors; a bare
        # `Exception` means that Prefect rejected the credentials.
        raise EventsUnavailable("Prefect's event stream is out of reach; Spine polls every few seconds.") from error
    raise EventsUnavailable("Prefect closed its event stream; Spine polls every few seconds.")


def _run_ended(resource: dict[str, str], payload: dict[str, Any], occurred: datetime) -> PrefectEvent:
    event = StateEvent(resource=resource, payload=payload, occurred=occurred)
    return PrefectEvent(Kind.RUN_ENDED, event.run_id if event.ended_before else None)
