"""Wakes the worker when runs are scheduled in its work pool, by Prefect's events."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import UUID

from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.logging import get_logger

# The states in which a run waits for a worker.
_EVENTS = ["prefect.flow-run.Scheduled", "prefect.flow-run.AwaitingRetry", "prefect.flow-run.Resuming"]
_LONGEST_PAUSE = 30.0
_logger = get_logger("worker.spine")


async def wake_on_scheduled_runs(pool_id: UUID, wake: Callable[[], None]) -> None:
    """Call `wake` for every run that is scheduled in the pool, until cancelled.

    A lost connection is opened again. The worker's own polling finds the runs that are scheduled in the meantime.
    """
    which = EventFilter(
        event=EventNameFilter(name=_EVENTS), any_resource=EventAnyResourceFilter(id=[f"prefect.work-pool.{pool_id}"])
    )
    pause = 1.0
    while True:
        try:
            async with get_events_subscriber(filter=which, reconnection_attempts=0) as events:
                wake()
                pause = 1.0
                async for _ in events:
                    wake()
        except Exception as error:  # Without events the worker still polls.
            _logger.debug("No events of scheduled runs: %s. Trying again in %.0f s.", type(error).__name__, pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


async def poll_when_woken(
    pool_id: Callable[[], UUID], woken: asyncio.Event, poll: Callable[[], Awaitable[object]]
) -> None:
    """Poll whenever runs are scheduled in the present work pool, or the event is set by others, until cancelled."""
    listening: asyncio.Task[None] | None = None
    listened = None
    try:
        while True:
            if listened != pool_id():
                listened = pool_id()
                if listening is not None:
                    listening.cancel()
                listening = asyncio.create_task(wake_on_scheduled_runs(listened, woken.set))
            await woken.wait()
            woken.clear()
            # Prefect's own polling loop reports the same errors.
            with suppress(Exception):
                await poll()
    finally:
        if listening is not None:
            listening.cancel()
