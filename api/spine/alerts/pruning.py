"""Delete old alerts."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from spine.audit.trail import Change, entry_of
from spine.database import SessionFactory, reading, transaction
from spine.tables.alerts import PENDING, Alert, AlertDelivery, AlertThrottle
from spine.tables.audit import AuditEntry
from spine.tables.base import new_id, utc_now

# Small enough that no other transaction waits for long.
ROWS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Pruned:
    """How many alerts are, or would be, deleted, with how many deliveries."""

    alerts: int
    deliveries: int


async def prune_alerts(sessions: SessionFactory, before: datetime, *, dry_run: bool) -> Pruned:
    """Delete the alerts raised before a moment, with their deliveries, except alerts with a pending delivery.

    With `dry_run` they are only counted. Raises `DatabaseUnavailable`.
    """
    pending = aliased(AlertDelivery)
    has_pending = exists().where(pending.alert_id == Alert.id, pending.status == PENDING)
    old = (Alert.created_at < before, ~has_pending)
    if dry_run:
        async with reading(sessions) as session:
            alerts = await session.scalar(select(func.count()).select_from(Alert).where(*old)) or 0
            of_old = select(func.count()).select_from(AlertDelivery).join(Alert).where(*old)
            return Pruned(alerts, await session.scalar(of_old) or 0)
    alerts = deliveries = 0
    entry_id = new_id()
    while True:
        async with transaction(sessions) as session:
            ids = (await session.scalars(select(Alert.id).where(*old).order_by(Alert.id).limit(ROWS_AT_ONCE))).all()
            of_these = AlertDelivery.alert_id.in_(ids)
            deleted = await session.scalars(delete(AlertDelivery).where(of_these).returning(AlertDelivery.id))
            deliveries += len(deleted.all())
            await session.execute(delete(Alert).where(Alert.id.in_(ids)))
            await session.execute(delete(AlertThrottle).where(AlertThrottle.quiet_until < min(before, utc_now())))
            alerts += len(ids)
            await _record(session, entry_id, before, Pruned(alerts, deliveries))
        if len(ids) < ROWS_AT_ONCE:
            return Pruned(alerts, deliveries)


async def _record(session: AsyncSession, entry_id: str, before: datetime, pruned: Pruned) -> None:
    """Keep one entry in the audit trail of what all transactions of a pruning have deleted so far."""
    if pruned.alerts:
        after = {"created_before": before.isoformat(), "deleted": pruned.alerts, "deliveries": pruned.deliveries}
        await session.merge(
            AuditEntry(**entry_of(Change("pruned", "alerts", "alerts", after=after), entry_id=entry_id))
        )
