"""One line in the log for each change that a request has made, beside its entry in the audit trail.

The line has the event `changed`, the fields `action`, `resource_type`, `resource_id` and `resource_name`, and as every
line of a request the `key`, the `address` and the `request_id`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger("spine.changes")


@dataclass
class Changes:
    """The changes that one request has made."""

    _lines: list[dict[str, str | None]] = field(default_factory=list)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Collect what `add_line` is called with while the block runs."""
        token = _collecting.set(self)
        try:
            yield
        finally:
            _collecting.reset(token)

    def add(self, **line: str | None) -> None:
        """Remember a change."""
        self._lines.append(line)

    def write(self) -> None:
        """Log the changes; call it when they are committed."""
        for line in self._lines:
            log.info("changed", **line)


_collecting: ContextVar[Changes | None] = ContextVar("spine_changes", default=None)


def add_line(action: str, resource_type: str, resource_id: str, resource_name: str | None) -> None:
    """Add a line to the log of the request; outside a request, nothing is logged."""
    changes = _collecting.get()
    if changes is not None:
        changes.add(action=action, resource_type=resource_type, resource_id=resource_id, resource_name=resource_name)
