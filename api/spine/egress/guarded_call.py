"""Guarded calls of a reader: their connections are checked, and shut down at the deadline.

A reader is a generator, and the guard must not affect what its caller does between two chunks. So the guard is set in
a separate context, which is entered for each call and left when the call returns.
"""

import threading
from collections.abc import Callable
from contextvars import copy_context
from math import isfinite
from typing import ParamSpec, TypeVar

from spine.egress.fetch_failure import FetchFailure
from spine.egress.guard import guarded
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory

P = ParamSpec("P")
T = TypeVar("T")


class GuardedCall:
    """Runs calls, one after the other and never nested, within one guard and one deadline."""

    def __init__(self, allow_private: bool, limits: Limits) -> None:
        self._context = copy_context()
        self._block = guarded(allow_private)
        self._guard = self._context.run(self._block.__enter__)
        self._closed = False
        self._timer: threading.Timer | None = None
        if isfinite(limits.deadline):
            # The timeouts of client libraries bound single waits; a server that drips bytes never exceeds one.
            wait = min(max(limits.left(), 0.0), threading.TIMEOUT_MAX)
            self._timer = threading.Timer(wait, self._guard.abort)
            self._timer.daemon = True
            self._timer.start()

    def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call within the guard."""
        return self._context.run(call, *args, **kwargs)

    def refusal(self, host: str) -> FetchFailure | None:
        """The failure that says why the guard refused an address of this host; None if it refused none."""
        if self._guard.refused is None:
            return None
        return FetchFailure(ErrorCategory.CONFIG, f"Cannot connect to {host}: {self._guard.refused}.")

    def close(self) -> None:
        """Stop the timer and forget the connections; safe to repeat."""
        if not self._closed:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._context.run(self._block.__exit__, None, None, None)
