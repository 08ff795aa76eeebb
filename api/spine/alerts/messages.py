"""The message that a receiver gets about an alert, and the outcome of one attempt to send it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spine.alerts.inert_text import one_line
from spine.severity import Severity


@dataclass(frozen=True)
class AlertMessage:
    """One alert for one receiver; `delivery_id` is the idempotency key, the same at every attempt."""

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
    # How many alerts with the same key were throttled since the last one that was sent.
    held_back: int = 0
    # What identifies the problem at receivers that keep incidents; the problems that a recovery ends.
    problem_key: str | None = None
    resolved_keys: tuple[str, ...] = ()
    # Whether it reports that the problem is acknowledged, which only receivers that keep incidents get.
    is_acknowledgement: bool = False

    @property
    def link(self) -> str:
        """Where the whole alert is: a URL in Prefect's UI for an alert about a run, else the path in Spine's API."""
        url = (self.metadata or {}).get("prefect_url")
        return url if isinstance(url, str) and url.startswith(("http://", "https://")) else self.path

    @property
    def path(self) -> str:
        """The path of the alert in Spine's API."""
        return f"/api/v1/alerts/{self.alert_id}"

    @property
    def headline(self) -> str:
        """One line: the severity and the title."""
        return f"[{self.severity}] {one_line(self.title)}"

    @property
    def text(self) -> str:
        """The message and where it comes from, as plain text of several lines."""
        fields = {
            "Source": self.source,
            "Domain": self.domain,
            "Run": self.run_id,
            "Category": self.error_category,
            "Throttled": f"{self.held_back} more since the last message" if self.held_back else None,
        }
        # A value of several lines could look like more fields.
        lines = [f"{name}: {one_line(value)}" for name, value in fields.items() if value]
        return "\n".join([self.message, "", *lines])


@dataclass(frozen=True)
class Outcome:
    """The outcome of one attempt: the receiver's status (HTTP or SMTP) and its reason, without secrets.

    `permanent` means that another attempt cannot succeed; `retry_after` is the wait that the receiver requests, in
    seconds.
    """

    sent: bool
    status: int | None = None
    reason: str | None = None
    permanent: bool = False
    retry_after: float | None = None
