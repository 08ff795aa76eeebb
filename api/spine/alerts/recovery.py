"""Recovery: when a problem has ended, resolve its alerts and inform the channels that were informed of it."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.alerts.outbox import RECOVERY_CAUSE, RESOLVED_KEYS, AlertEvent, key_hash_of, put_alert
from spine.cache.statements import batches
from spine.database import SessionFactory, reading, transaction
from spine.run_history.outcomes import COMPLETED
from spine.severity import Severity
from spine.tables.alerts import PENDING, SENT, Alert, AlertDelivery, AlertThrottle
from spine.tables.base import utc_now
from spine.tables.run_history import RunOutcome

# So many incidents can be resolved within one attempt to send.
MOST_KEYS = 20


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
    channel_ids, unsent = await _informed(session, ids)
    if not channel_ids:
        return
    newest = max(resolved, key=lambda alert: alert.id)
    keys = sorted({alert.dedup_key or alert.id for alert in resolved})[-MOST_KEYS:]
    event = AlertEvent(
        severity=Severity.INFO,
        title=title,
        message=f"{sentence} The resolved alert: {newest.title}.",
        source=newest.source,
        cause=recovery_cause(newest),
        domain=newest.domain,
        details={"resolves": sorted(ids)[-100:], RESOLVED_KEYS: keys},
        resolved_at=utc_now(),
    )
    # If the problem comes back, that is another one.
    hashes = {key_hash_of(alert) for alert in resolved}
    of_problem = (AlertThrottle.channel_id.in_(channel_ids), AlertThrottle.key_hash.in_(hashes))
    await session.execute(delete(AlertThrottle).where(*of_problem))
    stored = await put_alert(session, event, lambda channel: channel.id in channel_ids)
    for delivery_id, channel_id, recipient in unsent:
        same = (AlertDelivery.channel_id == channel_id, AlertDelivery.recipient.is_not_distinct_from(recipient))
        waiting = update(AlertDelivery).where(AlertDelivery.alert_id == stored.id, *same)
        await session.execute(waiting.values(after_id=delivery_id))


def recovery_cause(newest: Alert) -> str:
    """What identifies the end of a problem: its newest alert, and when that was resolved; it can be reopened."""
    return f"{RECOVERY_CAUSE}{newest.id}:{newest.resolved_at.isoformat() if newest.resolved_at else ''}"


async def has_recovered(session: AsyncSession, alert: Alert) -> bool:
    """Whether a later run of the deployment that the alert is about has succeeded."""
    if alert.deployment_id is None or alert.failed_at is None:
        return False
    succeeded = (RunOutcome.deployment_id == alert.deployment_id, RunOutcome.outcome == COMPLETED)
    newest = select(RunOutcome.ended_at).where(*succeeded).order_by(RunOutcome.scheduled_at.desc()).limit(1)
    succeeded_at = await session.scalar(newest)
    return succeeded_at is not None and succeeded_at > alert.failed_at


async def _informed(session: AsyncSession, alert_ids: Sequence[str]) -> tuple[set[str], list[tuple[str, str, Any]]]:
    """The channels that were informed of these alerts; and id, channel and recipient of each pending delivery."""
    channel_ids, unsent = set[str](), list[tuple[str, str, Any]]()
    for some in batches(alert_ids):
        of_these = AlertDelivery.alert_id.in_(some)
        told = select(AlertDelivery.channel_id).where(of_these, AlertDelivery.status.in_([SENT, PENDING])).distinct()
        channel_ids |= set(await session.scalars(told))
        pending = select(AlertDelivery.id, AlertDelivery.channel_id, AlertDelivery.recipient)
        pending = pending.where(of_these, AlertDelivery.status == PENDING, AlertDelivery.event.is_(None))
        unsent += [
            (row.id, row.channel_id, row.recipient) for row in await session.execute(pending.order_by(AlertDelivery.id))
        ]
    return channel_ids, unsent
