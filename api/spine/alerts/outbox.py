"""The outbox: store an alert and its deliveries, one for each receiver, in one transaction.

Nothing is sent here. The dispatcher of any API process finds the deliveries in the database.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cached_property
from hashlib import sha256
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Table, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from ulid import ULID

from spine.alerts.acknowledgements import Acknowledgements
from spine.alerts.problems import problem_id
from spine.alerts.throttling import Throttles
from spine.database import SessionFactory, reading, transaction
from spine.severity import Severity, stored_severity
from spine.tables.alerts import PENDING, THROTTLED, Alert, AlertChannel, AlertDelivery
from spine.tables.base import new_id, utc_now
from spine.text import storable

LONGEST_TITLE = 500
_ALERTS, _DELIVERIES = cast("Table", Alert.__table__), cast("Table", AlertDelivery.__table__)


@dataclass(frozen=True)
class AlertEvent:
    """An event that raises an alert. `cause` identifies the event: one cause raises one alert."""

    severity: Severity
    title: str
    message: str
    source: str
    cause: str
    domain: str | None = None
    details: dict[str, Any] | None = None
    run_id: str | None = None
    execution_id: str | None = None
    error_category: str | None = None
    capture_id: str | None = None
    dedup_key: str | None = None
    # Set for a failed run: a later success of this deployment resolves the alert.
    deployment_id: UUID | None = None
    failed_at: datetime | None = None
    # Set for the message about the end of a problem.
    resolved_at: datetime | None = None

    @cached_property
    def key_hash(self) -> str:
        """The key for throttling, as SHA-256 in hex: alerts with the same key count as the same alert."""
        key = self.dedup_key
        if key is None:
            # As they are stored, so that the key of a stored alert is the same.
            texts = (storable(self.title)[:LONGEST_TITLE], storable(self.message))
            key = json.dumps([self.source, *texts, self.severity.value, self.domain])
        return sha256(key.encode()).hexdigest()

    @property
    def problem(self) -> str:
        """What identifies the problem that the alert is about."""
        return problem_id(self.key_hash, self.domain)


# How recovery alerts are known, and the keys of the problems that they end.
RECOVERY_CAUSE = "resolved:"
RESOLVED_KEYS = "resolved_keys"


def key_hash_of(alert: Alert) -> str:
    """The key for throttling under which a stored alert was raised."""
    severity = stored_severity(alert.severity, Severity.ERROR, "alert", alert.id)
    return AlertEvent(
        severity, alert.title, alert.message, alert.source, "", domain=alert.domain, dedup_key=alert.dedup_key
    ).key_hash


def problem_of(alert: Alert) -> str:
    """What identifies the problem that a stored alert is about."""
    return problem_id(key_hash_of(alert), alert.domain)


def is_recovery(alert: Alert) -> bool:
    """Whether Spine has raised this alert for the end of a problem; what callers write in `metadata` does not count."""
    return alert.cause is not None and alert.cause.startswith(RECOVERY_CAUSE)


@dataclass(frozen=True)
class StoredAlert:
    """A stored alert and the number of its receivers; `is_new` is false if its cause raised it earlier."""

    id: str
    is_new: bool = True
    receivers: int = 0
    throttled: int = 0

    @property
    def summary(self) -> str:
        """The result as one sentence."""
        if not self.is_new:
            return "The alert was accepted earlier."
        queued = f"{self.receivers} {'delivery' if self.receivers == 1 else 'deliveries'} queued"
        throttled = f", {self.throttled} throttled" if self.throttled else ""
        return f"The alert was accepted: {queued}{throttled}."


ChannelFilter = Callable[[AlertChannel], bool]


async def raise_alert(sessions: SessionFactory, event: AlertEvent) -> StoredAlert:
    """Store an alert in its own transaction, once for each `cause`. Raises `DatabaseUnavailable`."""
    try:
        async with transaction(sessions) as session:
            return await put_alert(session, event)
    except IntegrityError:
        # Another process stored the same cause at the same moment.
        async with reading(sessions) as session:
            if (existing := (await _find_existing(session, [event.cause])).get(event.cause)) is None:
                raise
            return existing


async def put_alert(
    session: AsyncSession, event: AlertEvent, channel_filter: ChannelFilter | None = None
) -> StoredAlert:
    """Store an alert and its deliveries in the caller's transaction, unless its cause raised one earlier.

    Without `channel_filter`, it goes to the channels that accept its severity and domain, each of which may throttle
    it; all of them do if its problem is acknowledged. With `channel_filter`, it goes to the channels that the filter
    selects, unthrottled.
    """
    return (await put_alerts(session, [event], channel_filter))[0]


async def put_alerts(
    session: AsyncSession, events: Sequence[AlertEvent], channel_filter: ChannelFilter | None = None
) -> list[StoredAlert]:
    """Store alerts as `put_alert` does, one after the other, in as many statements as for one of them."""
    known = await _find_existing(session, {event.cause for event in events})
    now = utc_now()
    new = {event.cause: event for event in events if event.cause not in known}
    ids = {cause: str(ULID.from_datetime(now)) for cause in new}
    rising = sorted(new.values() if channel_filter is None else (), key=lambda event: event.severity.rank)
    acknowledgements = await Acknowledgements.lock(session, {one.problem: one.severity for one in rising}, now)
    shared = {cause: acknowledgements.take(one.problem, one.severity, ids[cause]) for cause, one in new.items()}
    if new:
        # In one order, so that two processes that store the same causes do not wait for each other. On SQLite this
        # waits for the only writer, so that the reads that follow are up to date.
        rows = [_values(ids[cause], new[cause], now, shared[cause]) for cause in sorted(new)]
        await session.execute(insert(_ALERTS), rows)
        await acknowledgements.settle(session)
    channels = await enabled_channels(session) if new else []
    receiving = {
        cause: [
            channel
            for channel in channels
            if (channel_filter(channel) if channel_filter else accepts(channel, event.severity, event.domain))
        ]
        for cause, event in new.items()
    }
    throttled = [(one, new[cause].key_hash) for cause, some in receiving.items() for one in some if not channel_filter]
    held = {new[cause].key_hash for cause, alert in shared.items() if alert is not None}
    throttles = await Throttles.lock(session, throttled, now, held)
    stored, deliveries = known, list[dict[str, Any]]()
    for cause, event in new.items():
        own = [
            delivery
            for channel in receiving[cause]
            for delivery in _deliveries(
                ids[cause], channel, throttles.take(channel, event.key_hash, event.severity, bool(shared[cause])), now
            )
        ]
        deliveries += own
        held_back = sum(delivery["status"] == THROTTLED for delivery in own)
        stored[cause] = StoredAlert(ids[cause], True, len(own) - held_back, held_back)
    await put_deliveries(session, deliveries)
    return [stored[event.cause] for event in events]


async def put_deliveries(session: AsyncSession, deliveries: Sequence[dict[str, Any]]) -> None:
    """Store deliveries, given as rows, in the caller's transaction."""
    if deliveries:
        await session.execute(insert(_DELIVERIES), deliveries)


def accepts(channel: AlertChannel, severity: Severity, domain: str | None) -> bool:
    """Whether a channel accepts alerts of this severity and domain."""
    # An alert too many does less harm than one that is lost.
    least = stored_severity(channel.min_severity, Severity.INFO, "channel", channel.id)
    if not channel.enabled or severity.rank < least.rank:
        return False
    if channel.domains is None:
        return True
    return domain is not None and any(fnmatchcase(domain, pattern) for pattern in channel.domains)


def _values(alert_id: str, event: AlertEvent, now: datetime, acknowledged: Alert | None) -> dict[str, Any]:
    return {
        "id": alert_id,
        "created_at": now,
        "severity": event.severity.value,
        "title": storable(event.title)[:LONGEST_TITLE],
        "message": storable(event.message),
        "source": event.source,
        "domain": event.domain,
        "metadata": event.details,
        "run_id": event.run_id,
        "execution_id": event.execution_id,
        "error_category": event.error_category,
        "capture_id": event.capture_id,
        "dedup_key": event.dedup_key,
        "cause": event.cause,
        "deployment_id": event.deployment_id,
        "failed_at": event.failed_at,
        "resolved_at": event.resolved_at,
        "acknowledged_by": acknowledged.acknowledged_by if acknowledged else None,
        "snoozed_until": acknowledged.snoozed_until if acknowledged else None,
        "assignee": acknowledged.assignee if acknowledged else None,
    }


async def _find_existing(session: AsyncSession, causes: Collection[str]) -> dict[str, StoredAlert]:
    found = await session.execute(select(Alert.cause, Alert.id).where(Alert.cause.in_(causes)))
    return {str(cause): StoredAlert(alert_id, is_new=False) for cause, alert_id in found}


async def enabled_channels(session: AsyncSession) -> Sequence[AlertChannel]:
    """The channels that are not disabled, locked until the transaction ends."""
    # The lock delays the deletion of a channel until its deliveries are stored, so that they are closed with it.
    wanted = select(AlertChannel).where(AlertChannel.enabled).order_by(AlertChannel.id)
    return (await session.scalars(wanted.with_for_update(read=True, key_share=True))).all()


def _deliveries(alert_id: str, channel: AlertChannel, held_back: int | None, now: datetime) -> list[dict[str, Any]]:
    throttled = held_back is None
    return [
        {
            "id": new_id(),
            "alert_id": alert_id,
            "channel_id": channel.id,
            "channel_name": channel.name,
            "recipient": recipient,
            "status": THROTTLED if throttled else PENDING,
            "created_at": now,
            "due_at": None if throttled else now,
            "held_back": held_back or 0,
        }
        for recipient in channel.recipients
    ]
