"""One log line when something starts to fail and one when it works again, however many tasks fail and however often."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from spine.errors import SpineError

log = structlog.get_logger("spine.log_throttle")


@dataclass(frozen=True)
class Failing:
    """A task that fails, since when, and its latest reason."""

    task: str
    since: datetime
    reason: str


class LogThrottle:
    """Logs the failures of the tasks of one part of the program, `name`, once for each class of error."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._kinds_by_task: dict[str, set[str]] = defaultdict(set)
        self._failing: dict[str, Failing] = {}

    def failed(self, task: str, error: Exception) -> None:
        """Report that a task failed; an error that is not Spine's own is a defect, and is logged with its traceback."""
        kind = type(error).__name__
        is_known = any(kind in kinds for kinds in self._kinds_by_task.values())
        self._kinds_by_task[task].add(kind)
        # The text of an error that is not Spine's own can hold a secret.
        reason = error.detail if isinstance(error, SpineError) else f"internal error ({kind})"
        before = self._failing.get(task)
        self._failing[task] = Failing(task, before.since if before else datetime.now(UTC), reason)
        if is_known:
            return
        if isinstance(error, SpineError):
            log.warning(f"{self._name}_interrupted", work=task, kind=kind, reason=error.detail)
        else:
            log.error(f"{self._name}_failed", work=task, kind=kind, exc_info=error)

    def recovered(self, task: str) -> None:
        """Report that a task succeeded; logs each class of error that no task has any more."""
        self._failing.pop(task, None)
        ended = self._kinds_by_task.pop(task, set())
        for kind in sorted(ended - set().union(*self._kinds_by_task.values())):
            log.info(f"{self._name}_resumed", work=task, kind=kind)

    def failing(self) -> list[Failing]:
        """The tasks that fail now, the longest failing first."""
        return sorted(self._failing.values(), key=lambda one: one.since)
