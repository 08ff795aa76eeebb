"""Take deliveries out of the database and put back what came of them: leases and marks, in short transactions.

Whoever takes a delivery holds it for a while; should the process die, somebody takes it again when that time is over.
A mark counts only with the lease that it was taken under.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Table, bindparam, exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.alerts.messages import Notice, Outcome
from spine.alerts.outbox import NewAlert, put_alert
from spine.alerts.transport import SECONDS_TO_SEND
from spine.database import SessionFactory, reading, transaction
from spine.severity import Severity
from spine.tables.alerts import FAILED, PENDING, SENT, Alert, AlertChannel, AlertDelivery, AlertThrottle
from spine.tables.base import new_id, utc_now
from spine.text import storable

# Twice as long as a try takes at the most.
LEASE = timedelta(seconds=20)
LONGEST_TRY = timedelta(seconds=SECONDS_TO_SEND)
LONGEST_DELAY = timedelta(minutes=30)
LONGEST_ERROR = 500
# A channel that failed as often in a row is reported to the others.
FAILURES_TO_REPORT = 10
# Alerts of Spine about its own channels; when they cannot be delivered, nothing more is said.
OWN_SOURCE = "spine.alerts"
_DELIVERIES = cast("Table", AlertDelivery.__table__)


@dataclass(frozen=True)
class Taken:
    """A delivery under lease, with all that is needed to send it."""

    channel: AlertChannel
    delivery: AlertDelivery
    notice: Notice

    def lease_outlasts_a_try(self) -> bool:
        """Whether it can still be sent before somebody else takes it."""
        return self.delivery.due_at is not None and utc_now() + LONGEST_TRY <= self.delivery.due_at


# What comes of a delivery that was taken and not sent.
GIVEN_BACK = Outcome(sent=False, reason="given back")


@dataclass(frozen=True)
class Patience:
    """How often a delivery is tried, and how long to wait after the first failure; the wait doubles each time."""

    attempts: int
    first_delay: timedelta

    def delay(self, attempt: int, retry_after: float | None) -> timedelta | None:
        """How long to wait after this many attempts; None when it was the last one.

        Half of it is by chance, so that what failed together does not come back together.
        """
        if attempt >= self.attempts:
            return None
        whole = min(LONGEST_DELAY, self.first_delay * int(2 ** min(attempt - 1, 20)))
        delay = whole * random.uniform(0.5, 1)  # noqa: S311 - nobody gains from guessing it
        return max(delay, timedelta(seconds=retry_after or 0))


async def due_channels(sessions: SessionFactory, busy: Collection[str]) -> Sequence[AlertChannel]:
    """The enabled channels that something is due for, without the busy ones."""
    due = exists().where(_is_due(AlertChannel.id, utc_now()))
    wanted = select(AlertChannel).where(AlertChannel.enabled, AlertChannel.id.not_in(busy), due)
    async with reading(sessions) as session:
        return (await session.scalars(wanted.order_by(AlertChannel.id))).all()


def _is_due(channel_id: Any, now: datetime) -> Any:
    return (AlertDelivery.channel_id == channel_id) & (AlertDelivery.status == PENDING) & (AlertDelivery.due_at <= now)


async def take(sessions: SessionFactory, channel: AlertChannel, most: int) -> list[Taken]:
    """Lease the deliveries that are due for a channel, the longest due first; other processes skip them."""
    now = utc_now()
    wanted = select(AlertDelivery.id).where(_is_due(channel.id, now)).order_by(AlertDelivery.due_at, AlertDelivery.id)
    # Materialised, so that the limit is applied once whatever plan the database chooses.
    due = wanted.limit(most).with_for_update(skip_locked=True).cte("due")
    lease = {"lease": new_id(), "due_at": now + LEASE, "attempt": AlertDelivery.attempt + 1, "attempted_at": now}
    taking = (
        update(AlertDelivery).where(AlertDelivery.id.in_(select(due.c.id))).values(**lease).returning(AlertDelivery)
    )
    async with transaction(sessions) as session:
        taken = (await session.scalars(taking, execution_options={"synchronize_session": False})).all()
        ids = {delivery.alert_id for delivery in taken}
        alerts = {one.id: one for one in await session.scalars(select(Alert).where(Alert.id.in_(ids)))}
    return [Taken(channel, delivery, _notice(alerts[delivery.alert_id], delivery)) for delivery in taken]


def _notice(alert: Alert, delivery: AlertDelivery) -> Notice:
    return Notice(
        delivery_id=delivery.id,
        alert_id=alert.id,
        severity=Severity(alert.severity),
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
    )


async def mark(
    sessions: SessionFactory, outcomes: Sequence[tuple[Taken, Outcome, datetime]], patience: Patience
) -> None:
    """Write down what came of deliveries, how their channels fare, and what that is worth an alert for."""
    # In one order of channels, so that two processes that mark at once do not wait for each other in a circle.
    ordered = sorted(outcomes, key=lambda one: (one[0].channel.id, one[2]))
    async with transaction(sessions) as session:
        for (_, sent), same in groupby(ordered, key=lambda one: (one[0].channel.id, one[1].sent)):
            if sent:
                await _mark_sent(session, [(taken, ended_at) for taken, _, ended_at in same])
                continue
            for taken, outcome, ended_at in same:
                if outcome is GIVEN_BACK:
                    await _give_back(session, taken, ended_at)
                else:
                    await _mark_failed(session, taken, outcome, ended_at, patience)


def _mine(taken: Taken) -> tuple[ColumnElement[bool], ...]:
    return (
        AlertDelivery.id == taken.delivery.id,
        AlertDelivery.lease == taken.delivery.lease,
        AlertDelivery.status == PENDING,
    )


async def _mark_sent(session: AsyncSession, sent: Sequence[tuple[Taken, datetime]]) -> None:
    """Mark deliveries to one channel, all in one statement."""
    closed = {"status": SENT, "due_at": None, "next_retry_at": None, "error": None}
    marking = (
        update(_DELIVERIES)
        .where(_DELIVERIES.c.id == bindparam("its_id"), _DELIVERIES.c.lease == bindparam("its_lease"))
        .where(_DELIVERIES.c.status == PENDING)
        .values(**closed, delivered_at=bindparam("ended_at"), delivery_ms=bindparam("took_ms"))
    )
    rows = [
        {
            "its_id": taken.delivery.id,
            "its_lease": taken.delivery.lease,
            "ended_at": ended_at,
            "took_ms": round((ended_at - taken.delivery.created_at).total_seconds() * 1000),
        }
        for taken, ended_at in sent
    ]
    await session.execute(marking, rows)
    taken, ended_at = sent[-1]
    healthy = {"last_success_at": ended_at, "consecutive_failures": 0}
    await session.execute(update(AlertChannel).where(AlertChannel.id == taken.channel.id).values(**healthy))


async def _give_back(session: AsyncSession, taken: Taken, now: datetime) -> None:
    again = {"due_at": now, "lease": None, "attempt": AlertDelivery.attempt - 1}
    await session.execute(update(AlertDelivery).where(*_mine(taken)).values(**again))


async def _mark_failed(
    session: AsyncSession, taken: Taken, outcome: Outcome, ended_at: datetime, patience: Patience
) -> None:
    delay = None if outcome.permanent else patience.delay(taken.delivery.attempt, outcome.retry_after)
    retry_at = None if delay is None else ended_at + delay
    # Whatever a receiver says, the database must take it: a refused mark would hold up all other deliveries.
    error = storable(outcome.reason or "the receiver did not say why")[:LONGEST_ERROR]
    values = {"status": PENDING if retry_at else FAILED, "due_at": retry_at, "next_retry_at": retry_at, "error": error}
    done = await session.execute(update(AlertDelivery).where(*_mine(taken)).values(**values))
    if cast("CursorResult[Any]", done).rowcount == 0:
        return
    await _note_failure(session, taken, outcome, ended_at)
    if retry_at is None:
        await _given_up(session, taken, error)


async def _note_failure(session: AsyncSession, taken: Taken, outcome: Outcome, ended_at: datetime) -> None:
    failures = await session.scalar(
        update(AlertChannel)
        .where(AlertChannel.id == taken.channel.id)
        .values(last_failure_at=ended_at, consecutive_failures=AlertChannel.consecutive_failures + 1)
        .returning(AlertChannel.consecutive_failures)
    )
    if failures == FAILURES_TO_REPORT:
        title = f"The alert channel {taken.channel.name} fails"
        message = f"The last {failures} attempts to send to it failed, most lately with: {outcome.reason}."
        cause = f"channel-fails:{taken.delivery.id}:{taken.delivery.attempt}"
        await _tell_others(session, taken, title, message, cause)


async def _given_up(session: AsyncSession, taken: Taken, error: str) -> None:
    """Nobody heard of this alert here, so the next one like it is not held back; and others hear that it is so."""
    alert = await session.get_one(Alert, taken.delivery.alert_id)
    key_hash = NewAlert(
        Severity(alert.severity), alert.title, "", alert.source, "", domain=alert.domain, dedup_key=alert.dedup_key
    ).key_hash
    mine = (AlertThrottle.channel_id == taken.channel.id, AlertThrottle.key_hash == key_hash)
    await session.execute(update(AlertThrottle).where(*mine).values(quiet_until=utc_now()))
    if alert.source == OWN_SOURCE:
        return
    title = f"An alert could not be sent to {taken.channel.name}"
    message = f"{alert.title!r} was given up after {taken.delivery.attempt} attempts: {error}."
    # At most one an hour for a channel: a dead one would otherwise double every alert.
    cause = f"undelivered:{taken.channel.id}:{utc_now():%Y-%m-%dT%H}"
    await _tell_others(session, taken, title, message, cause)


async def _tell_others(session: AsyncSession, taken: Taken, title: str, message: str, cause: str) -> None:
    new = NewAlert(Severity.ERROR, title, message, OWN_SOURCE, cause, details={"channel_id": taken.channel.id})
    await put_alert(session, new, lambda channel: channel.id != taken.channel.id)
