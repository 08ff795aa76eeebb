"""What a receiver is told of an alert, and what came of telling it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spine.severity import Severity


@dataclass(frozen=True)
class Notice:
    """One alert on its way to one receiver; `delivery_id` is the idempotency key, the same at every try."""

    delivery_id: str
    alert_id: str
    severity: Severity
    title: str
    message: str
    source: str
    created_at: datetime
    domain: str | None = None
    run_id: str | None = None
    execution_id: str | None = None
    error_category: str | None = None
    metadata: Mapping[str, Any] | None = None
    # How many alerts like this one were held back since the last one that was sent.
    held_back: int = 0

    @property
    def headline(self) -> str:
        """One line: how bad it is and what it is."""
        return f"[{self.severity}] {self.title}"

    @property
    def text(self) -> str:
        """The message and what places it, as plain text of several lines."""
        facts = {
            "Source": self.source,
            "Domain": self.domain,
            "Run": self.run_id,
            "Category": self.error_category,
            "Held back": f"{self.held_back} more of the same since the last notice" if self.held_back else None,
        }
        lines = [f"{name}: {value}" for name, value in facts.items() if value]
        return "\n".join([self.message, "", *lines])


@dataclass(frozen=True)
class Outcome:
    """What came of one try: the receiver's status (HTTP or SMTP) and its reason, without secrets.

    `permanent` means that another try cannot help; `retry_after` is the receiver's wish in seconds.
    """

    sent: bool
    status: int | None = None
    reason: str | None = None
    permanent: bool = False
    retry_after: float | None = None
