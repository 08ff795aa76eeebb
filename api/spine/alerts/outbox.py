"""Store an alert together with the promise to tell each receiver of it: both are there, or neither is.

Nothing is sent here. Whoever runs the dispatcher, in whatever process, finds the deliveries in the database.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from ulid import ULID

from spine.database import SessionFactory, database_errors
from spine.severity import Severity
from spine.tables.alerts import PENDING, THROTTLED, Alert, AlertChannel, AlertDelivery, AlertThrottle
from spine.tables.base import utc_now
from spine.text import storable


@dataclass(frozen=True)
class NewAlert:
    """An alert before it is stored; `cause` names what raised it, once and for all."""

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
        """What is the same for alerts that say the same, as SHA-256 in hex."""
        key = self.dedup_key
        if key is None:
            key = json.dumps([self.source, self.title, self.severity.value, self.domain])
        return sha256(key.encode()).hexdigest()


@dataclass(frozen=True)
class Stored:
    """A stored alert and how many receivers will be told; `is_new` is false when its cause had raised it before."""

    id: str
    is_new: bool = True
    promised: int = 0
    throttled: int = 0

    @property
    def summary(self) -> str:
        """What was done, as one sentence."""
        if not self.is_new:
            return "The alert was accepted before."
        told = f"{self.promised} {'receiver is' if self.promised == 1 else 'receivers are'} told of it"
        held_back = f", {self.throttled} held back" if self.throttled else ""
        return f"The alert was accepted; {told}{held_back}."


ChannelFilter = Callable[[AlertChannel], bool]


async def raise_alert(sessions: SessionFactory, new: NewAlert) -> Stored:
    """Store an alert in a transaction of its own, once for each `cause`. Raises `DatabaseUnavailable`."""
    with database_errors():
        try:
            async with sessions.begin() as session:
                return await put_alert(session, new)
        except IntegrityError:
            # Somebody else met the same cause at the same moment.
            async with sessions() as session:
                if (known := await _known(session, new.cause)) is None:
                    raise
                return known


async def put_alert(session: AsyncSession, new: NewAlert, goes_to: ChannelFilter | None = None) -> Stored:
    """Store an alert and its deliveries in the caller's transaction, unless its cause has raised one before.

    Without `goes_to`, the channels decide by severity and domain, and hold back what they were told a moment ago; with
    it, they are told in any case.
    """
    if (known := await _known(session, new.cause)) is not None:
        return known
    now = utc_now()
    alert = _alert(new, now)
    session.add(alert)
    # On SQLite this waits for the one writer, so that what is read next cannot be old.
    await session.flush()
    deliveries: list[AlertDelivery] = []
    for channel in await _enabled_channels(session):
        if goes_to(channel) if goes_to else takes(channel, new.severity, new.domain):
            held_back = 0 if goes_to else await _throttle(session, channel, new.key_hash, now)
            deliveries += _deliveries(alert, channel, held_back, now)
    session.add_all(deliveries)
    throttled = sum(delivery.status == THROTTLED for delivery in deliveries)
    return Stored(alert.id, True, len(deliveries) - throttled, throttled)


def takes(channel: AlertChannel, severity: Severity, domain: str | None) -> bool:
    """Whether a channel wants to hear of this."""
    if not channel.enabled or severity.rank < Severity(channel.min_severity).rank:
        return False
    if channel.domains is None:
        return True
    return domain is not None and any(fnmatchcase(domain, pattern) for pattern in channel.domains)


def _alert(new: NewAlert, now: datetime) -> Alert:
    return Alert(
        id=str(ULID.from_datetime(now)),
        created_at=now,
        severity=new.severity.value,
        title=storable(new.title)[:500],
        message=storable(new.message),
        source=new.source,
        domain=new.domain,
        details=new.details,
        run_id=new.run_id,
        execution_id=new.execution_id,
        error_category=new.error_category,
        capture_id=new.capture_id,
        dedup_key=new.dedup_key,
        cause=new.cause,
        deployment_id=new.deployment_id,
        failed_at=new.failed_at,
    )


async def _known(session: AsyncSession, cause: str) -> Stored | None:
    alert_id = await session.scalar(select(Alert.id).where(Alert.cause == cause))
    return Stored(alert_id, is_new=False) if alert_id else None


async def _enabled_channels(session: AsyncSession) -> Sequence[AlertChannel]:
    # The lock keeps a channel from being deleted until its deliveries are there to be closed with it.
    wanted = select(AlertChannel).where(AlertChannel.enabled).order_by(AlertChannel.id)
    return (await session.scalars(wanted.with_for_update(read=True, key_share=True))).all()


async def _throttle(session: AsyncSession, channel: AlertChannel, key_hash: str, now: datetime) -> int | None:
    """None when the channel is to keep quiet about this for now; else how many alerts like it were held back before."""
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
