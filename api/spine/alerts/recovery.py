"""Recovery: when a later run or fetch succeeds, resolve the alerts of the failures and inform the same channels."""

from collections.abc import Sequence

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.alerts.outbox import AlertEvent, put_alert
from spine.database import SessionFactory, reading, transaction
from spine.run_history.outcomes import COMPLETED
from spine.severity import Severity
from spine.tables.alerts import PENDING, SENT, Alert, AlertDelivery
from spine.tables.base import utc_now
from spine.tables.run_history import RunOutcome


async def resolve_recovered(sessions: SessionFactory) -> bool:
    """Resolve the alerts of deployments of which a later run succeeded; return whether there were any.

    Raises `DatabaseUnavailable`.
    """
    unresolved = (Alert.deployment_id.is_not(None), Alert.resolved_at.is_(None))
    first = func.min(Alert.failed_at).label("failed_at")
    failing = select(Alert.deployment_id, first).where(*unresolved).group_by(Alert.deployment_id).subquery()
    # One index lookup for each deployment, however long its history is.
    newest_success = (
        select(RunOutcome.ended_at)
        .where(RunOutcome.deployment_id == failing.c.deployment_id, RunOutcome.outcome == COMPLETED)
        .order_by(RunOutcome.scheduled_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    recovered = select(failing.c.deployment_id, newest_success).where(newest_success > failing.c.failed_at)
    async with reading(sessions) as session:
        found = (await session.execute(recovered)).all()
    for deployment_id, succeeded_at in found:
        async with transaction(sessions) as session:
            earlier = (*unresolved, Alert.deployment_id == deployment_id, Alert.failed_at < succeeded_at)
            resolving = update(Alert).where(*earlier).values(resolved_at=utc_now()).returning(Alert)
            resolved = (await session.scalars(resolving, execution_options={"synchronize_session": False})).all()
            if resolved:
                source = max(resolved, key=lambda alert: alert.id).source
                title = f"RESOLVED: {source} succeeds again"
                await put_recovery_alert(session, resolved, title, "A later run succeeded.")
    return bool(found)


async def put_recovery_alert(session: AsyncSession, resolved: Sequence[Alert], title: str, sentence: str) -> None:
    """Store an INFO alert for the channels that got one of the resolved alerts; `sentence` begins its message."""
    ids = [alert.id for alert in resolved]
    delivered = AlertDelivery.status.in_([SENT, PENDING])
    informed = select(AlertDelivery.channel_id).where(AlertDelivery.alert_id.in_(ids), delivered).distinct()
    channel_ids = set(await session.scalars(informed))
    if not channel_ids:
        return
    newest = max(resolved, key=lambda alert: alert.id)
    event = AlertEvent(
        severity=Severity.INFO,
        title=title,
        message=f"{sentence} The resolved alert: {newest.title}.",
        source=newest.source,
        cause=f"resolved:{newest.id}",
        domain=newest.domain,
        details={"resolves": sorted(ids)[-100:]},
    )
    await put_alert(session, event, lambda channel: channel.id in channel_ids)
