"""What people do about alerts: acknowledge, resolve and reopen them, with all alerts about the same problem."""

from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.alerts.acknowledgements import (
    end_acknowledgement,
    lock_acknowledgements,
    lock_open_alerts,
    put_acknowledgement,
)
from spine.alerts.channels import CHANNEL_TYPES
from spine.alerts.outbox import enabled_channels, is_recovery, problem_of, put_deliveries
from spine.alerts.problems import about_same_problem, state_of
from spine.alerts.queries import find_alert, read_alert
from spine.alerts.recovery import has_recovered, put_recovery_alert, recovery_cause
from spine.alerts.schemas import AlertAcknowledge, AlertDetail, AlertResolve, AlertState
from spine.audit.trail import record
from spine.auth.callers import Caller
from spine.auth.domains import Domains
from spine.errors import BadRequest, Conflict
from spine.severity import Severity, stored_severity
from spine.tables.alerts import ACKNOWLEDGE, PENDING, SENT, Alert, AlertDelivery
from spine.tables.base import new_id, utc_now
from spine.tables.presenting import refuse_unreadable

_NO_SYNC = {"synchronize_session": False}
# What the audit trail keeps of an alert before and after an action.
_AUDITED = {"state", "acknowledged_by", "assignee", "snoozed_until", "resolved_at", "note"}


async def acknowledge(session: AsyncSession, caller: Caller, alert_id: str, body: AlertAcknowledge) -> AlertDetail:
    """Stop the reminders of a problem until a time, until it is resolved, or until its severity rises.

    The incidents that receivers keep for it are acknowledged, once: to repeat this only changes who and until when.
    Raises `NotFound`, `Conflict` for an alert that is resolved, and `BadRequest` for a time that is past.
    """
    now = utc_now()
    if body.until is not None and body.until <= now:
        raise BadRequest("The field until is invalid: give a time that is still to come.")
    alert = await _lock(session, caller.domains, alert_id)
    if alert.resolved_at is not None:
        raise Conflict(f"The alert {alert.id} is resolved and cannot be acknowledged; reopen it first.")
    before = await read_alert(session, caller.domains, alert.id)
    is_new = state_of(alert, now) is not AlertState.ACKNOWLEDGED
    sent = body.model_dump(include={"note", "assignee"}, exclude_none=True)
    opened = (about_same_problem(alert), Alert.resolved_at.is_(None))
    values = {**sent, "acknowledged_by": caller.name, "snoozed_until": body.until}
    changing = update(Alert).where(*opened).values(**values).returning(Alert.id, Alert.severity)
    rows = (await session.execute(changing, execution_options=_NO_SYNC)).all()
    severities = [stored_severity(severity, Severity.INFO, Alert.record, row_id) for row_id, severity in rows]
    highest = max(severities, key=lambda severity: severity.rank)
    await put_acknowledgement(session, problem_of(alert), max(row_id for row_id, _ in rows), highest)
    if is_new:
        await _queue_acknowledgements(session, alert, now)
    return await _recorded(session, caller, "acknowledged", before)


async def resolve(session: AsyncSession, caller: Caller, alert_id: str, body: AlertResolve) -> AlertDetail:
    """Resolve a problem by hand, and inform the channels that were informed of it; to repeat this changes nothing.

    Raises `NotFound`.
    """
    alert = await _lock(session, caller.domains, alert_id)
    before = await read_alert(session, caller.domains, alert.id)
    if alert.resolved_at is not None:
        return before
    sent = body.model_dump(exclude_none=True)
    opened = (about_same_problem(alert), Alert.resolved_at.is_(None))
    closing = update(Alert).where(*opened).values(**sent, resolved_at=utc_now()).returning(Alert)
    options = {**_NO_SYNC, "populate_existing": True}
    resolved = (await session.scalars(closing, execution_options=options)).all()
    sentence = f"{caller.name} resolved it{f' with the note {body.note!r}' if body.note else ''}."
    await put_recovery_alert(session, resolved, f"RESOLVED: {alert.title}", sentence)
    return await _recorded(session, caller, "resolved", before)


async def reopen(session: AsyncSession, caller: Caller, alert_id: str) -> AlertDetail:
    """Let a problem fire again that was acknowledged or resolved; to repeat this changes nothing.

    The channels that got the message about its end get its newest alert again. Raises `NotFound`, and `Conflict` for a
    problem that would be resolved again at once.
    """
    alert = await _lock(session, caller.domains, alert_id)
    before = await read_alert(session, caller.domains, alert.id)
    if is_recovery(alert):
        raise Conflict(f"The alert {alert.id} reports the end of a problem; reopen an alert about the problem instead.")
    if alert.resolved_at is not None:
        if await has_recovered(session, alert):
            raise Conflict(f"A run has succeeded since the alert {alert.id}; the next failure raises another alert.")
        await _reopen_resolved(session, alert)
    elif alert.acknowledged_by is None:
        return before
    await end_acknowledgement(session, problem_of(alert), alert)
    return await _recorded(session, caller, "reopened", before)


async def _recorded(session: AsyncSession, caller: Caller, action: str, before: AlertDetail) -> AlertDetail:
    """The alert after an action, with an entry of the action in the audit trail."""
    after = await read_alert(session, caller.domains, before.id)
    was, now = (one.model_dump(mode="json", include=_AUDITED) for one in (before, after))
    await record(session, action, Alert.record, before.id, before.title, before=was, after=now)
    return after


async def _lock(session: AsyncSession, domains: Domains, alert_id: str) -> Alert:
    """The alert, with all alerts about its problem that are open or were resolved with it locked."""
    alert = await find_alert(session, domains, alert_id)
    refuse_unreadable(alert)
    await lock_open_alerts(session, alert)
    # An alert that shares the acknowledgement is stored before what follows, or after it.
    await lock_acknowledgements(session, [problem_of(alert)])
    return await find_alert(session, domains, alert_id)


async def _queue_acknowledgements(session: AsyncSession, alert: Alert, now: datetime) -> None:
    """Queue an event for each open incident about the problem, to be sent after the one that opens it.

    An alert with a key shares the incident of its key, and one without has its own.
    """
    channels = [one for one in await enabled_channels(session) if _keeps_incidents(one.channel_type)]
    told = (
        select(AlertDelivery)
        .join(Alert, Alert.id == AlertDelivery.alert_id)
        .where(about_same_problem(alert), Alert.resolved_at.is_(None), AlertDelivery.event.is_(None))
        .where(AlertDelivery.channel_id.in_([one.id for one in channels]))
        .where(AlertDelivery.status.in_([SENT, PENDING]))
        .order_by(AlertDelivery.id)
    )
    newest = {
        (one.channel_id, alert.id if alert.dedup_key else one.alert_id): one for one in await session.scalars(told)
    }
    events = [_after(one, incident, now, event=ACKNOWLEDGE) for (_, incident), one in newest.items()]
    await put_deliveries(session, events)


def _keeps_incidents(channel_type: str) -> bool:
    found = CHANNEL_TYPES.get(channel_type)
    return found is not None and found.keeps_incidents


async def _reopen_resolved(session: AsyncSession, alert: Alert) -> None:
    """Open what was resolved together, and queue its newest alert for the receivers that were informed of the end."""
    together = (about_same_problem(alert), Alert.resolved_at == alert.resolved_at)
    newest = (await session.scalars(select(Alert).where(*together).order_by(Alert.id.desc()).limit(1))).one()
    told = select(AlertDelivery).join(Alert, Alert.id == AlertDelivery.alert_id)
    told = told.where(Alert.cause == recovery_cause(newest), AlertDelivery.status.in_([SENT, PENDING]))
    receivers = (await session.scalars(told.order_by(AlertDelivery.id))).all()
    enabled = {one.id for one in await enabled_channels(session)}
    now = utc_now()
    again = [_after(one, newest.id, now) for one in receivers if one.channel_id in enabled]
    opening = update(Alert).where(*together).values(resolved_at=None)
    await session.execute(opening, execution_options=_NO_SYNC)
    await put_deliveries(session, again)


def _after(earlier: AlertDelivery, alert_id: str, now: datetime, event: str | None = None) -> dict[str, Any]:
    """A delivery to the same receiver as an earlier one, to be sent when that has ended."""
    return {
        "id": new_id(),
        "alert_id": alert_id,
        "channel_id": earlier.channel_id,
        "channel_name": earlier.channel_name,
        "recipient": earlier.recipient,
        "status": PENDING,
        "created_at": now,
        "due_at": now,
        "event": event,
        "after_id": earlier.id if earlier.status == PENDING else None,
    }
