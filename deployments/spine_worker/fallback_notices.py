"""Reports that runs start in Prefect's own way: one line in the worker's log, and an event for `/health/ready`."""

import time

from prefect.events import emit_event
from prefect.logging import get_logger

EVENT = "spine.worker.fallback"
POOL_LABEL = "spine.work-pool"
# Spine's API reads the events of the last twenty minutes.
_SECONDS_BETWEEN_EVENTS = 600.0
_logger = get_logger("worker.spine")


class FallbackNotices:
    """The reasons that one worker has reported."""

    def __init__(self) -> None:
        self._logged: set[str] = set()
        self._next_event = 0.0

    def report(self, worker: str, work_pool: str, reason: str) -> None:
        """Report a reason: each once in the log, and an event at most every ten minutes."""
        if reason not in self._logged:
            self._logged.add(reason)
            _logger.warning("Runs start in a new interpreter, as with Prefect's process worker: %s.", reason)
        if time.monotonic() < self._next_event:
            return
        self._next_event = time.monotonic() + _SECONDS_BETWEEN_EVENTS
        emit_event(
            event=EVENT,
            resource={
                "prefect.resource.id": f"spine.worker.{worker}",
                "prefect.resource.name": worker,
                POOL_LABEL: work_pool,
            },
            payload={"reason": reason},
        )
