"""The news that a failure is over, to those who heard of it."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.alerts.outbox import NewAlert, put_alert
from spine.severity import Severity
from spine.tables.alerts import PENDING, SENT, Alert, AlertDelivery


async def tell_resolved(session: AsyncSession, resolved: Sequence[Alert], title: str, what_happened: str) -> None:
    """Tell the channels that these alerts went to that they are resolved; `what_happened` is a whole sentence."""
    ids = [alert.id for alert in resolved]
    told = AlertDelivery.status.in_([SENT, PENDING])
    heard = set(
        await session.scalars(select(AlertDelivery.channel_id).where(AlertDelivery.alert_id.in_(ids), told).distinct())
    )
    if not heard:
        return
    newest = max(resolved, key=lambda alert: alert.id)
    await put_alert(
        session,
        NewAlert(
            severity=Severity.INFO,
            title=title,
            message=f"{what_happened} This was: {newest.title}.",
            source=newest.source,
            cause=f"resolved:{newest.id}",
            domain=newest.domain,
            details={"resolves": sorted(ids)[-100:]},
        ),
        lambda channel: channel.id in heard,
    )
