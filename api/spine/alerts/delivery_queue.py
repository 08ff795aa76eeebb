"""The queue of deliveries in the database: lease what is due, and record the outcomes, in short transactions.

A process leases a delivery before it sends it. If the process dies, the lease expires and any process can lease the
delivery again. An outcome is recorded only while the lease it was sent under is still valid.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Table, bindparam, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from spine.alerts.messages import AlertMessage, Outcome
from spine.alerts.outbox import RESOLVED_KEYS, AlertEvent, is_recovery, key_hash_of, put_alert
from spine.alerts.transport import SECONDS_TO_SEND
from spine.database import SessionFactory, reading, transaction
from spine.oddities import ODDITIES
from spine.severity import Severity, stored_severity
from spine.tables.alerts import ACKNOWLEDGE, FAILED, PENDING, SENT, Alert, AlertChannel, AlertDelivery, AlertThrottle
from spine.tables.base import new_id, utc_now
from spine.text import storable
from spine.unreadable import Unreadable

# Twice as long as an attempt can take.
LEASE = timedelta(seconds=20)
LONGEST_ATTEMPT = timedelta(seconds=SECONDS_TO_SEND)
LONGEST_DELAY = timedelta(minutes=30)
LONGEST_ERROR = 500
# When a channel has failed this often in a row, the other channels are alerted.
FAILURES_TO_REPORT = 10
# The source of alerts about Spine's own channels. When one of these cannot be delivered, no further alert is raised.
OWN_SOURCE = "spine.alerts"
_DELIVERIES = cast("Table", AlertDelivery.__table__)


@dataclass(frozen=True)
class LeasedDelivery:
    """A delivery that this process has leased, with everything needed to send it."""

    channel: AlertChannel
    delivery: AlertDelivery
    message: AlertMessage

    def lease_outlasts_an_attempt(self) -> bool:
        """Whether an attempt that begins now ends before the lease expires."""
        return self.delivery.due_at is not None and utc_now() + LONGEST_ATTEMPT <= self.delivery.due_at


# The outcome of a delivery whose lease is released without an attempt to send it.
RELEASED = Outcome(sent=False, reason="released")


@dataclass(frozen=True)
class RetryPolicy:
    """How many attempts a delivery gets, and the wait after the first failure; the wait doubles each time."""

    attempts: int
    first_delay: timedelta

    def delay(self, attempt: int, retry_after: float | None) -> timedelta | None:
        """How long to wait after this many attempts; None after the last one.

        Half of the wait is random, so that deliveries that failed together are not retried together.
        """
        if attempt >= self.attempts:
            return None
        whole = min(LONGEST_DELAY, self.first_delay * int(2 ** min(attempt - 1, 20)))
        delay = whole * random.uniform(0.5, 1)  # noqa: S311 - not used for security
        return max(delay, timedelta(seconds=retry_after or 0))


async def due_channels(sessions: SessionFactory, busy: Collection[str]) -> Sequence[AlertChannel]:
    """The enabled channels that have due deliveries, without the `busy` ones."""
    due = exists().where(_is_due(AlertChannel.id, utc_now()))
    wanted = select(AlertChannel).where(AlertChannel.enabled, AlertChannel.id.not_in(busy), due)
    async with reading(sessions) as session:
        return (await session.scalars(wanted.order_by(AlertChannel.id))).all()


def _is_due(channel_id: Any, now: datetime) -> Any:
    first = aliased(AlertDelivery)
    is_waiting = exists().where(first.id == AlertDelivery.after_id, first.status == PENDING)
    is_pending = (AlertDelivery.channel_id == channel_id) & (AlertDelivery.status == PENDING)
    return is_pending & (AlertDelivery.due_at <= now) & or_(AlertDelivery.after_id.is_(None), ~is_waiting)


async def lease_due(sessions: SessionFactory, channel: AlertChannel, limit: int) -> list[LeasedDelivery]:
    """Lease up to `limit` due deliveries of a channel, the longest due first; other processes skip them."""
    now = utc_now()
    wanted = select(AlertDelivery.id).where(_is_due(channel.id, now)).order_by(AlertDelivery.due_at, AlertDelivery.id)
    # Materialised, so that the limit is applied once, whatever plan the database chooses.
    due = wanted.limit(limit).with_for_update(skip_locked=True).cte("due")
    lease = {"lease": new_id(), "due_at": now + LEASE, "attempt": AlertDelivery.attempt + 1, "attempted_at": now}
    leasing = (
        update(AlertDelivery).where(AlertDelivery.id.in_(select(due.c.id))).values(**lease).returning(AlertDelivery)
    )
    async with transaction(sessions) as session:
        leased = (await session.scalars(leasing, execution_options={"synchronize_session": False})).all()
        ids = {delivery.alert_id for delivery in leased}
        alerts = {one.id: one for one in await session.scalars(select(Alert).where(Alert.id.in_(ids)))}
        found = [(delivery, _message_or_reason(alerts.get(delivery.alert_id), delivery)) for delivery in leased]
        for delivery, reason in found:
            if isinstance(reason, str):
                await _close(session, delivery, reason)
    return [LeasedDelivery(channel, one, message) for one, message in found if isinstance(message, AlertMessage)]


async def _close(session: AsyncSession, delivery: AlertDelivery, reason: str) -> None:
    """End a delivery that nothing can be sent for; the others of its channel do not wait for it."""
    ODDITIES.found(AlertDelivery.record, delivery.id, reason)
    await session.execute(
        update(AlertDelivery)
        .where(AlertDelivery.id == delivery.id)
        .values(status=FAILED, due_at=None, next_retry_at=None, error=reason),
        execution_options={"synchronize_session": False},
    )


def _message_or_reason(alert: Alert | None, delivery: AlertDelivery) -> AlertMessage | str:
    if alert is None:
        return "its alert no longer exists"
    try:
        return _message(alert, delivery)
    except Exception as error:
        return f"its alert cannot be read ({type(error).__name__})"


def _message(alert: Alert, delivery: AlertDelivery) -> AlertMessage:
    return AlertMessage(
        delivery_id=delivery.id,
        alert_id=alert.id,
        severity=stored_severity(alert.severity, Severity.ERROR, "alert", alert.id),
        title=alert.title,
        message=alert.message,
        source=alert.source,
        created_at=alert.created_at,
        domain=alert.domain,
        run_id=alert.run_id,
        execution_id=alert.execution_id,
        error_category=alert.error_category,
        metadata=alert.details,
        held_back=delivery.held_back,
        problem_key=alert.dedup_key,
        resolved_keys=tuple((alert.details or {}).get(RESOLVED_KEYS, ())) if is_recovery(alert) else (),
        is_acknowledgement=delivery.event == ACKNOWLEDGE,
    )


async def record_outcomes(
    sessions: SessionFactory, outcomes: Sequence[tuple[LeasedDelivery, Outcome, datetime]], retry_policy: RetryPolicy
) -> None:
    """Record the outcomes of deliveries, update the health of their channels, and raise alerts about failures."""
    # Always in the same order of channels, so that two processes that record at once cannot deadlock.
    ordered = sorted(outcomes, key=lambda one: (one[0].channel.id, one[2]))
    async with transaction(sessions) as session:
        for (_, sent), same in groupby(ordered, key=lambda one: (one[0].channel.id, one[1].sent)):
            if sent:
                await _record_sent(session, [(leased, ended_at) for leased, _, ended_at in same])
                continue
            for leased, outcome, ended_at in same:
                if outcome is RELEASED:
                    await _release(session, leased, ended_at)
                else:
                    await _record_failed(session, leased, outcome, ended_at, retry_policy)


def _still_leased(leased: LeasedDelivery) -> tuple[ColumnElement[bool], ...]:
    return (
        AlertDelivery.id == leased.delivery.id,
        AlertDelivery.lease == leased.delivery.lease,
        AlertDelivery.status == PENDING,
    )


async def _record_sent(session: AsyncSession, sent: Sequence[tuple[LeasedDelivery, datetime]]) -> None:
    """Record the deliveries sent to one channel, all in one statement."""
    closed = {"status": SENT, "due_at": None, "next_retry_at": None, "error": None}
    recording = (
        update(_DELIVERIES)
        .where(_DELIVERIES.c.id == bindparam("its_id"), _DELIVERIES.c.lease == bindparam("its_lease"))
        .where(_DELIVERIES.c.status == PENDING)
        .values(**closed, delivered_at=bindparam("ended_at"), delivery_ms=bindparam("took_ms"))
    )
    rows = [
        {
            "its_id": leased.delivery.id,
            "its_lease": leased.delivery.lease,
            "ended_at": ended_at,
            "took_ms": _milliseconds_since(leased.delivery, ended_at),
        }
        for leased, ended_at in sent
    ]
    await session.execute(recording, rows)
    leased, ended_at = sent[-1]
    healthy = {"last_success_at": ended_at, "consecutive_failures": 0}
    await session.execute(update(AlertChannel).where(AlertChannel.id == leased.channel.id).values(**healthy))


def _milliseconds_since(delivery: AlertDelivery, ended_at: datetime) -> int | None:
    if isinstance(delivery.created_at, Unreadable):
        return None
    return round((ended_at - delivery.created_at).total_seconds() * 1000)


async def _release(session: AsyncSession, leased: LeasedDelivery, now: datetime) -> None:
    again = {"due_at": now, "lease": None, "attempt": AlertDelivery.attempt - 1}
    await session.execute(update(AlertDelivery).where(*_still_leased(leased)).values(**again))


async def _record_failed(
    session: AsyncSession, leased: LeasedDelivery, outcome: Outcome, ended_at: datetime, retry_policy: RetryPolicy
) -> None:
    delay = None if outcome.permanent else retry_policy.delay(leased.delivery.attempt, outcome.retry_after)
    retry_at = None if delay is None else ended_at + delay
    # The reason must be storable whatever a receiver sends: an update that fails would block all other deliveries.
    error = storable(outcome.reason or "the receiver gave no reason")[:LONGEST_ERROR]
    values = {"status": PENDING if retry_at else FAILED, "due_at": retry_at, "next_retry_at": retry_at, "error": error}
    done = await session.execute(update(AlertDelivery).where(*_still_leased(leased)).values(**values))
    if cast("CursorResult[Any]", done).rowcount == 0:
        return
    await _count_failure(session, leased, outcome, ended_at)
    if retry_at is None:
        await _abandon(session, leased, error)


async def _count_failure(session: AsyncSession, leased: LeasedDelivery, outcome: Outcome, ended_at: datetime) -> None:
    failures = await session.scalar(
        update(AlertChannel)
        .where(AlertChannel.id == leased.channel.id)
        .values(last_failure_at=ended_at, consecutive_failures=AlertChannel.consecutive_failures + 1)
        .returning(AlertChannel.consecutive_failures)
    )
    if failures == FAILURES_TO_REPORT:
        title = f"The alert channel {leased.channel.name} is failing"
        message = f"The last {failures} attempts to send to it failed. The latest reason: {outcome.reason}."
        cause = f"channel-fails:{leased.delivery.id}:{leased.delivery.attempt}"
        await _alert_other_channels(session, leased, title, message, cause)


async def _abandon(session: AsyncSession, leased: LeasedDelivery, error: str) -> None:
    """End the throttling that this alert began, as it never arrived, and alert the other channels."""
    alert = await session.get_one(Alert, leased.delivery.alert_id)
    what = repr(alert.title)
    if leased.delivery.event == ACKNOWLEDGE:
        what = f"The acknowledgement of {what}"
    else:
        mine = (AlertThrottle.channel_id == leased.channel.id, AlertThrottle.key_hash == key_hash_of(alert))
        await session.execute(update(AlertThrottle).where(*mine).values(quiet_until=utc_now()))
    if alert.source == OWN_SOURCE:
        return
    title = f"An alert could not be sent to {leased.channel.name}"
    attempts = leased.delivery.attempt
    message = f"{what} was abandoned after {attempts} {'attempt' if attempts == 1 else 'attempts'}: {error}."
    # At most one an hour for each channel: a dead channel would otherwise double every alert.
    cause = f"undelivered:{leased.channel.id}:{utc_now():%Y-%m-%dT%H}"
    await _alert_other_channels(session, leased, title, message, cause)


async def _alert_other_channels(
    session: AsyncSession, leased: LeasedDelivery, title: str, message: str, cause: str
) -> None:
    details = {"channel_id": leased.channel.id}
    event = AlertEvent(Severity.ERROR, title, message, OWN_SOURCE, cause, details=details)
    await put_alert(session, event, lambda channel: channel.id != leased.channel.id)
