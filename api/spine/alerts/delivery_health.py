"""How telling people goes: what waits, what was given up lately, and which channels fail."""

from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import func, select

from spine.alerts.delivery_queue import FAILURES_TO_REPORT
from spine.database import SessionFactory, reading
from spine.tables.alerts import FAILED, PENDING, AlertChannel, AlertDelivery
from spine.tables.base import utc_now

LATELY = timedelta(hours=1)


@dataclass(frozen=True)
class DeliveryHealth:
    """Deliveries that wait, those given up within the last hour, and failures in a row per enabled channel."""

    pending: int
    given_up: int
    oldest_pending_seconds: float
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def failing(self) -> list[str]:
        """The channels that fail and fail."""
        return sorted(name for name, failures in self.failures.items() if failures >= FAILURES_TO_REPORT)

    @property
    def is_troubled(self) -> bool:
        """Whether somebody may not have heard of something."""
        return bool(self.given_up or self.failing)

    @property
    def summary(self) -> str:
        """All of it as one line."""
        told = [f"{self.pending} {'delivery waits' if self.pending == 1 else 'deliveries wait'}"]
        if self.given_up:
            told.append(f"{self.given_up} given up within the last hour")
        if self.failing:
            told.append(f"failing channels: {', '.join(self.failing)}")
        return "; ".join(told)


async def read_delivery_health(sessions: SessionFactory) -> DeliveryHealth:
    """Read it, from short indexes. Raises `DatabaseUnavailable`."""
    now = utc_now()
    waiting = select(func.count(), func.min(AlertDelivery.created_at)).where(AlertDelivery.status == PENDING)
    recent = (AlertDelivery.status == FAILED, AlertDelivery.created_at >= now - LATELY)
    async with reading(sessions) as session:
        pending, oldest = (await session.execute(waiting)).one()
        given_up = await session.scalar(select(func.count()).select_from(AlertDelivery).where(*recent)) or 0
        channels = select(AlertChannel.name, AlertChannel.consecutive_failures).where(AlertChannel.enabled)
        failures = {row.name: row.consecutive_failures for row in await session.execute(channels)}
    age = (now - oldest).total_seconds() if oldest else 0.0
    return DeliveryHealth(pending, given_up, max(age, 0.0), failures)
