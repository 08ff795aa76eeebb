"""The outbox: store an alert and its deliveries, one for each receiver, in one transaction.

Nothing is sent here. The dispatcher of any API process finds the deliveries in the database.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from ulid import ULID

from spine.auth.changes import record_change
from spine.auth.domains import Domains
from spine.database import SessionFactory, reading, transaction
from spine.schemas import ActionResponse
from spine.severity import Severity
from spine.tables.alerts import PENDING, THROTTLED, Alert, AlertChannel, AlertDelivery, AlertThrottle
from spine.tables.base import utc_now
from spine.text import storable


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

    @property
    def key_hash(self) -> str:
        """The key for throttling, as SHA-256 in hex: alerts with the same key count as the same alert."""
        key = self.dedup_key
        if key is None:
            key = json.dumps([self.source, self.title, self.severity.value, self.domain])
        return sha256(key.encode()).hexdigest()


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
            if (existing := await _find_existing(session, event.cause)) is None:
                raise
            return existing


async def request_alert(sessions: SessionFactory, domains: Domains, event: AlertEvent) -> ActionResponse:
    """Store an alert that a caller raises. Raises `Forbidden` for a domain that the caller may not use.

    A limited caller has deduplication keys of its own in each domain, so that it cannot throttle alerts of others.
    """
    domains.require(event.domain, "the alert")
    if domains.is_limited and event.dedup_key is not None:
        own_key = sha256(json.dumps([event.domain, event.dedup_key]).encode()).hexdigest()
        event = replace(event, dedup_key=f"limited:{own_key}")
    stored = await raise_alert(sessions, event)
    record_change("raised", "alert", stored.id, event.title)
    return ActionResponse(id=stored.id, status="created", message=stored.summary)


async def put_alert(
    session: AsyncSession, event: AlertEvent, channel_filter: ChannelFilter | None = None
) -> StoredAlert:
    """Store an alert and its deliveries in the caller's transaction, unless its cause raised one earlier.

    Without `channel_filter`, it goes to the channels that accept its severity and domain, each of which may throttle
    it. With `channel_filter`, it goes to the channels that the filter selects, unthrottled.
    """
    if (existing := await _find_existing(session, event.cause)) is not None:
        return existing
    now = utc_now()
    alert = _alert(event, now)
    session.add(alert)
    # On SQLite this waits for the only writer, so that the reads that follow are up to date.
    await session.flush()
    deliveries: list[AlertDelivery] = []
    for channel in await _enabled_channels(session):
        if channel_filter(channel) if channel_filter else accepts(channel, event.severity, event.domain):
            held_back = 0 if channel_filter else await _throttle(session, channel, event.key_hash, now)
            deliveries += _deliveries(alert, channel, held_back, now)
    session.add_all(deliveries)
    throttled = sum(delivery.status == THROTTLED for delivery in deliveries)
    return StoredAlert(alert.id, True, len(deliveries) - throttled, throttled)


def accepts(channel: AlertChannel, severity: Severity, domain: str | None) -> bool:
    """Whether a channel accepts alerts of this severity and domain."""
    if not channel.enabled or severity.rank < Severity(channel.min_severity).rank:
        return False
    if channel.domains is None:
        return True
    return domain is not None and any(fnmatchcase(domain, pattern) for pattern in channel.domains)


def _alert(event: AlertEvent, now: datetime) -> Alert:
    return Alert(
        id=str(ULID.from_datetime(now)),
        created_at=now,
        severity=event.severity.value,
        title=storable(event.title)[:500],
        message=storable(event.message),
        source=event.source,
        domain=event.domain,
        details=event.details,
        run_id=event.run_id,
        execution_id=event.execution_id,
        error_category=event.error_category,
        capture_id=event.capture_id,
        dedup_key=event.dedup_key,
        cause=event.cause,
        deployment_id=event.deployment_id,
        failed_at=event.failed_at,
    )


async def _find_existing(session: AsyncSession, cause: str) -> StoredAlert | None:
    alert_id = await session.scalar(select(Alert.id).where(Alert.cause == cause))
    return StoredAlert(alert_id, is_new=False) if alert_id else None


async def _enabled_channels(session: AsyncSession) -> Sequence[AlertChannel]:
    # The lock delays the deletion of a channel until its deliveries are stored, so that they are closed with it.
    wanted = select(AlertChannel).where(AlertChannel.enabled).order_by(AlertChannel.id)
    return (await session.scalars(wanted.with_for_update(read=True, key_share=True))).all()


async def _throttle(session: AsyncSession, channel: AlertChannel, key_hash: str, now: datetime) -> int | None:
    """None if the channel throttles this alert; else how many alerts with the same key it throttled before."""
    quiet_until = now + timedelta(minutes=channel.throttle_minutes)
    mine = (AlertThrottle.channel_id == channel.id, AlertThrottle.key_hash == key_hash)
    row = await session.scalar(select(AlertThrottle).where(*mine).with_for_update())
    if row is None:
        if not channel.throttle_minutes:
            return 0
        try:
            async with session.begin_nested():
                session.add(AlertThrottle(channel_id=channel.id, key_hash=key_hash, quiet_until=quiet_until))
            return 0
        except IntegrityError:
            row = (await session.scalars(select(AlertThrottle).where(*mine).with_for_update())).one()
    if channel.throttle_minutes and row.quiet_until > now:
        row.held_back += 1
        return None
    held_back, row.held_back, row.quiet_until = row.held_back, 0, quiet_until
    return held_back


def _deliveries(alert: Alert, channel: AlertChannel, held_back: int | None, now: datetime) -> list[AlertDelivery]:
    throttled = held_back is None
    return [
        AlertDelivery(
            alert_id=alert.id,
            channel_id=channel.id,
            channel_name=channel.name,
            recipient=recipient,
            status=THROTTLED if throttled else PENDING,
            created_at=now,
            due_at=None if throttled else now,
            held_back=held_back or 0,
        )
        for recipient in channel.recipients
    ]
