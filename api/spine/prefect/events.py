"""Prefect's events: the stream, from which who listens hears at once what would otherwise be found at the next look."""

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
FINAL_STATES = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
# Prefect's route for stored events returns at most this many for one call.
MOST_EVENTS = 50

_DEPLOYMENT = ("prefect.deployment.created", "prefect.deployment.updated", "prefect.deployment.deleted")


class EventsUnavailable(PrefectUnavailable):
    """The stream is not there; what Prefect's other routes tell may still be."""


class StateEvent(BaseModel):
    """The event that a flow run went into a state."""

    occurred: datetime
    resource: dict[str, str]
    payload: dict[str, Any] = {}

    @property
    def run_id(self) -> UUID:
        """The flow run."""
        return UUID(self.resource["prefect.resource.id"].removeprefix(FLOW_RUN_PREFIX))

    @property
    def ended_before(self) -> bool:
        """Whether the state that the run came from was a final one, too."""
        return (self.payload.get("initial_state") or {}).get("type") in FINAL_STATES


class EventPage(BaseModel):
    """Some stored events, newest first."""

    events: list[StateEvent]


class Kind(StrEnum):
    """What an event tells, as far as Spine cares."""

    OPENED = "the stream is open; what came before nobody told us"
    RUN_ENDED = "a run reached a final state"
    DEPLOYMENT_CHANGED = "a deployment was made, changed or deleted"


@dataclass(frozen=True)
class Happening:
    """Something that happened in Prefect; `run_id` names a run that had ended before and was put into another end."""

    kind: Kind
    run_id: UUID | None = None


async def listen() -> AsyncGenerator[Happening, None]:
    """What happens in Prefect, as it happens; an event can come just before the change that it tells can be read.

    Raises `EventsUnavailable` when the stream cannot be opened or breaks off.
    """
    wanted = EventFilter(event=EventNameFilter(prefix=[FLOW_RUN_PREFIX, "prefect.deployment."]))
    try:
        async with get_events_subscriber(filter=wanted, reconnection_attempts=0) as stream:
            yield Happening(Kind.OPENED)
            async for event in stream:
                if event.event in _DEPLOYMENT:
                    yield Happening(Kind.DEPLOYMENT_CHANGED)
                elif event.resource.get("prefect.state-type") in FINAL_STATES:
                    yield _ending(event.resource.model_dump(), event.payload, event.occurred)
    except Exception as error:
        # The stream is made of a web socket, an HTTP client and Prefect's own code, each with errors of its own; the
        # bare one means that the credentials were refused.
        raise EventsUnavailable("Prefect's event stream is out of reach; Spine looks every few seconds.") from error
    raise EventsUnavailable("Prefect's event stream was closed; Spine looks every few seconds.")


def _ending(resource: dict[str, str], payload: dict[str, Any], occurred: datetime) -> Happening:
    event = StateEvent(resource=resource, payload=payload, occurred=occurred)
    return Happening(Kind.RUN_ENDED, event.run_id if event.ended_before else None)
