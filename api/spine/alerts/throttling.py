"""Throttling: a channel gets alerts with one key once within its `throttle_minutes`, unless their severity rises."""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.cache.statements import upsert
from spine.severity import Severity, stored_severity
from spine.tables.alerts import AlertChannel, AlertThrottle


class Throttles:
    """The throttles of some channels and keys, locked until the transaction ends."""

    def __init__(self, rows: dict[tuple[str, str], AlertThrottle], now: datetime) -> None:
        self._rows = rows
        self._now = now

    @classmethod
    async def lock(
        cls,
        session: AsyncSession,
        wanted: Collection[tuple[AlertChannel, str]],
        now: datetime,
        acknowledged: Collection[str],
    ) -> "Throttles":
        """Lock the throttles of these channels and keys; `acknowledged` are the keys of acknowledged problems.

        They are made first, and both in one order, so that two transactions never wait for each other.
        """
        made = sorted(
            {
                (channel.id, key_hash)
                for channel, key_hash in wanted
                if channel.throttle_minutes or key_hash in acknowledged
            }
        )
        if made:
            # One that throttles nothing yet.
            rows = [{"channel_id": channel, "key_hash": key, "quiet_until": now} for channel, key in made]
            await session.execute(upsert(session, AlertThrottle).values(rows).on_conflict_do_nothing())
        if not wanted:
            return cls({}, now)
        # These are all combinations, of which few are not wanted.
        its_channel = AlertThrottle.channel_id.in_({channel.id for channel, _ in wanted})
        its_key = AlertThrottle.key_hash.in_({key_hash for _, key_hash in wanted})
        in_order = select(AlertThrottle).where(its_channel, its_key).order_by(AlertThrottle.channel_id)
        locked = await session.scalars(
            in_order.order_by(AlertThrottle.key_hash).with_for_update(),
            execution_options={"populate_existing": True},
        )
        return cls({(row.channel_id, row.key_hash): row for row in locked}, now)

    def take(self, channel: AlertChannel, key_hash: str, severity: Severity, is_acknowledged: bool) -> int | None:
        """None if the channel throttles this alert; else how many alerts with the same key it throttled before.

        An alert of a higher severity than the last one that was sent is not throttled; one about an acknowledged
        problem always is.
        """
        row = self._rows.get((channel.id, key_hash))
        if row is None:
            return 0
        is_higher = row.severity is not None and severity.rank > _severity_of(row).rank
        is_quiet = channel.throttle_minutes and row.quiet_until > self._now and not is_higher
        if is_acknowledged or is_quiet:
            row.held_back += 1
            return None
        held_back, row.held_back = row.held_back, 0
        row.quiet_until = self._now + timedelta(minutes=channel.throttle_minutes)
        row.severity = severity.value
        return held_back


def _severity_of(row: AlertThrottle) -> Severity:
    # An alert too many does less harm than one that is lost.
    return stored_severity(row.severity or "", Severity.INFO, "channel", row.channel_id)
