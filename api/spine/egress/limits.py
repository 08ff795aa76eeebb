"""How many bytes and how much time one fetch may take."""

import time
from dataclasses import dataclass, field
from math import isfinite

from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory


@dataclass
class Limits:
    """What one fetch may take over all its items: bytes, and time until `deadline` (of `time.monotonic`).

    `seconds` is the configured time limit, which the error message quotes.
    """

    max_bytes: int | None
    deadline: float
    seconds: float | None = None
    _taken: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.seconds is None:
            self.seconds = round(self.left(), 3) if isfinite(self.deadline) else self.deadline

    def left(self) -> float:
        """The seconds until the deadline; zero or negative after it."""
        return self.deadline - time.monotonic()

    def wait(self, longest: float, category: ErrorCategory = ErrorCategory.NETWORK) -> float:
        """How many seconds one wait may take, up to `longest`. Raises `FetchFailure` after the deadline."""
        self.check_time(category)
        # Slightly longer than the time left, so that a wait which times out is always past the deadline.
        return min(self.left() + 0.05, longest)

    def check_time(self, category: ErrorCategory = ErrorCategory.NETWORK) -> None:
        """Raise `FetchFailure` after the deadline."""
        if self.left() <= 0:
            sentence = f"The source was not read within the {self.seconds:g} s that timeout_seconds allows."
            raise FetchFailure(category, sentence, transient=True)

    def expect(self, count: int | None) -> None:
        """Raise `FetchFailure` if `count` more bytes would exceed `max_bytes`; None means that the size is unknown."""
        if self.max_bytes is not None and count is not None and self._taken + count > self.max_bytes:
            sentence = f"The source has more than the {self.max_bytes:,} bytes that max_bytes allows."
            raise FetchFailure(ErrorCategory.SOURCE, sentence)

    def take(self, count: int) -> None:
        """Count bytes that were read. Raises `FetchFailure` when they exceed `max_bytes`."""
        self.expect(count)
        self._taken += count
