"""Delete alerts that are older than anybody wants to read."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import aliased

from spine.database import SessionFactory, database_errors
from spine.tables.alerts import PENDING, Alert, AlertDelivery, AlertThrottle
from spine.tables.base import utc_now

# One transaction holds nobody up for long.
ROWS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Pruned:
    """How many alerts are, or would be, deleted, with how many deliveries."""

    alerts: int
    deliveries: int


async def prune_alerts(sessions: SessionFactory, before: datetime, *, dry_run: bool) -> Pruned:
    """Delete the alerts raised before a moment with their deliveries, but for those that wait to be sent.

    With `dry_run` they are only counted. Raises `DatabaseUnavailable`.
    """
    unsent = aliased(AlertDelivery)
    waits = exists().where(unsent.alert_id == Alert.id, unsent.status == PENDING)
    old = (Alert.created_at < before, ~waits)
    with database_errors():
        if dry_run:
            async with sessions() as session:
                alerts = await session.scalar(select(func.count()).select_from(Alert).where(*old)) or 0
                of_old = select(func.count()).select_from(AlertDelivery).join(Alert).where(*old)
                return Pruned(alerts, await session.scalar(of_old) or 0)
        alerts = deliveries = 0
        while True:
            async with sessions.begin() as session:
                ids = (await session.scalars(select(Alert.id).where(*old).order_by(Alert.id).limit(ROWS_AT_ONCE))).all()
                of_these = AlertDelivery.alert_id.in_(ids)
                gone = await session.scalars(delete(AlertDelivery).where(of_these).returning(AlertDelivery.id))
                deliveries += len(gone.all())
                await session.execute(delete(Alert).where(Alert.id.in_(ids)))
                await session.execute(delete(AlertThrottle).where(AlertThrottle.quiet_until < min(before, utc_now())))
            alerts += len(ids)
            if len(ids) < ROWS_AT_ONCE:
                return Pruned(alerts, deliveries)
