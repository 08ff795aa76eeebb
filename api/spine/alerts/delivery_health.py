"""The health of deliveries: how many are pending or were abandoned recently, and which channels are failing."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import func, select

from spine.alerts.delivery_queue import FAILURES_TO_REPORT
from spine.database import SessionFactory, reading
from spine.tables.alerts import FAILED, PENDING, AlertChannel, AlertDelivery
from spine.tables.base import utc_now

RECENT = timedelta(hours=1)


@dataclass(frozen=True)
class DeliveryHealth:
    """Counts of pending deliveries and of those abandoned within the last hour, and each enabled channel's failures."""

    pending: int
    abandoned: int
    oldest_pending_seconds: float
    # Consecutive failures by the channel's name.
    failures: dict[str, int] = field(default_factory=dict)
    # The number of channels with many consecutive failures, by their type.
    failing_by_type: Counter[str] = field(default_factory=Counter)
    # Since when the first delivery that is due has been due.
    overdue_seconds: float = 0.0

    @property
    def failing(self) -> list[str]:
        """The channels with many consecutive failures."""
        return sorted(name for name, failures in self.failures.items() if failures >= FAILURES_TO_REPORT)

    @property
    def is_degraded(self) -> bool:
        """Whether alerts may not have arrived."""
        return bool(self.abandoned or self.failing)

    @property
    def summary(self) -> str:
        """The health as one line."""
        parts = [f"{self.pending} {'delivery' if self.pending == 1 else 'deliveries'} pending"]
        if self.abandoned:
            parts.append(f"{self.abandoned} abandoned within the last hour")
        if self.failing:
            parts.append(f"failing channels: {', '.join(self.failing)}")
        return "; ".join(parts)


async def read_delivery_health(sessions: SessionFactory) -> DeliveryHealth:
    """Read the health of deliveries, from small indexes. Raises `DatabaseUnavailable`."""
    now = utc_now()
    pending_rows = select(func.count(), func.min(AlertDelivery.created_at)).where(AlertDelivery.status == PENDING)
    # Those of a disabled channel wait until it is enabled.
    enabled = select(AlertChannel.id).where(AlertChannel.enabled)
    due = (AlertDelivery.status == PENDING, AlertDelivery.channel_id.in_(enabled))
    recent = (AlertDelivery.status == FAILED, AlertDelivery.created_at >= now - RECENT)
    async with reading(sessions) as session:
        pending, oldest = (await session.execute(pending_rows)).one()
        due_at = await session.scalar(select(func.min(AlertDelivery.due_at)).where(*due))
        abandoned = await session.scalar(select(func.count()).select_from(AlertDelivery).where(*recent)) or 0
        wanted = select(AlertChannel.name, AlertChannel.channel_type, AlertChannel.consecutive_failures)
        channels = (await session.execute(wanted.where(AlertChannel.enabled))).all()
    failures = {row.name: row.consecutive_failures for row in channels}
    failing = Counter(row.channel_type for row in channels if row.consecutive_failures >= FAILURES_TO_REPORT)
    return DeliveryHealth(pending, abandoned, _age(oldest, now), failures, failing, _age(due_at, now))


def _age(moment: datetime | None, now: datetime) -> float:
    return max((now - moment).total_seconds(), 0.0) if moment else 0.0
