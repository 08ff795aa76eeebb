"""Work of a reader that connects: guarded, and ended at its deadline.

A reader is a generator, and what its caller does between two chunks is none of the guard's business. So the guard is
set in a context of the reader's own, which is entered for each piece of work and left with it.
"""

import threading
from collections.abc import Callable
from contextvars import copy_context
from math import isfinite
from typing import ParamSpec, TypeVar

from spine.egress.fetch_failure import FetchFailure
from spine.egress.guard import guarded
from spine.schemas import ErrorCategory
from spine.sources.readers.base import Limits

P = ParamSpec("P")
T = TypeVar("T")


class GuardedWork:
    """Runs pieces of work, not one within another, whose connections are checked and shut down at the deadline."""

    def __init__(self, allow_private: bool, limits: Limits) -> None:
        self._context = copy_context()
        self._block = guarded(allow_private)
        self._passage = self._context.run(self._block.__enter__)
        self._closed = False
        self._timer: threading.Timer | None = None
        if isfinite(limits.deadline):
            # Time limits of client libraries bound single waits; a server that drips never meets one.
            wait = min(max(limits.left(), 0.0), threading.TIMEOUT_MAX)
            self._timer = threading.Timer(wait, self._passage.abort)
            self._timer.daemon = True
            self._timer.start()

    def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call within the guard."""
        return self._context.run(call, *args, **kwargs)

    def refusal(self, host: str) -> FetchFailure | None:
        """Why an address of this host was not connected to, if the guard refused one."""
        if self._passage.refused is None:
            return None
        return FetchFailure(ErrorCategory.CONFIG, f"{host} cannot be connected to: {self._passage.refused}.")

    def close(self) -> None:
        """Stop the clock and forget the connections; safe to repeat."""
        if not self._closed:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._context.run(self._block.__exit__, None, None, None)
