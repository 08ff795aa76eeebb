"""Queries for clients: pages of alerts, one alert with its deliveries, and the statistics of a period."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from ulid import ULID

from spine.alerts.problems import has_state, state_of
from spine.alerts.schemas import (
    AlertDeliveryDetail,
    AlertDetail,
    AlertState,
    AlertStats,
    AlertSummary,
    DeliveryEvent,
    DeliveryStatus,
    StatsPeriod,
)
from spine.auth.domains import Domains
from spine.errors import NotFound
from spine.pagination import Page, PageRequest, make_page, paginate
from spine.schemas import ErrorCategory
from spine.severity import Severity
from spine.tables.alerts import FAILED, SENT, Alert, AlertChannel, AlertDelivery
from spine.tables.base import utc_now
from spine.tables.presenting import present_each, present_one

PERIODS = {
    StatsPeriod.HOUR: timedelta(hours=1),
    StatsPeriod.DAY: timedelta(days=1),
    StatsPeriod.WEEK: timedelta(weeks=1),
    StatsPeriod.MONTH: timedelta(days=30),
}


@dataclass(frozen=True)
class AlertQuery:
    """The filters of a list of alerts; they combine with AND."""

    # What the caller may see.
    domains: Domains
    severity: Severity | None = None
    source: str | None = None
    domain: str | None = None
    since: datetime | None = None
    # One of these.
    states: Sequence[AlertState] | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filters as SQL conditions."""
        found = self.domains.conditions(Alert.domain)
        if self.severity is not None:
            found.append(Alert.severity == self.severity.value)
        if self.source is not None:
            found.append(Alert.source == self.source)
        if self.domain is not None:
            found.append(Alert.domain == self.domain)
        if self.since is not None:
            # Ids are ordered by time, so every index that ends in the id can be used for this too.
            found += [Alert.id >= _first_id(self.since), Alert.created_at >= self.since]
        if self.states:
            now = utc_now()
            found.append(or_(*(has_state(state, now) for state in self.states)))
        return found


def _first_id(moment: datetime) -> str:
    milliseconds = max(0, int(moment.timestamp() * 1000))
    return str(ULID.from_bytes(milliseconds.to_bytes(6, "big") + bytes(10)))


async def list_alerts(session: AsyncSession, query: AlertQuery, page: PageRequest) -> Page[AlertSummary]:
    """A page of alerts, newest first."""
    conditions = query.conditions()
    found, total = await paginate(session, select(Alert).where(*conditions).order_by(Alert.id.desc()), page)
    rows = [row for (row,) in found]
    counts = await _delivery_counts(session, [row.id for row in rows])
    shown = present_each(rows, lambda row: AlertSummary(**_summary(row, counts)), lambda row: row)
    return make_page(shown, total, page)


async def _delivery_counts(session: AsyncSession, alert_ids: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """For each alert, the number of its deliveries: all, sent, failed."""
    counts = select(AlertDelivery.alert_id, func.count(), _count_if(SENT), _count_if(FAILED))
    rows = await session.execute(counts.where(AlertDelivery.alert_id.in_(alert_ids)).group_by(AlertDelivery.alert_id))
    return {alert_id: (total, sent, failed) for alert_id, total, sent, failed in rows}


def _count_if(status: str) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((AlertDelivery.status == status, 1), else_=0)), 0)


def _summary(alert: Alert, counts: dict[str, tuple[int, int, int]]) -> dict[str, Any]:
    total, sent, failed = counts.get(alert.id, (0, 0, 0))
    return {
        "id": alert.id,
        "severity": Severity(alert.severity),
        "title": alert.title,
        "source": alert.source,
        "domain": alert.domain,
        "created_at": alert.created_at,
        "delivery_count": total,
        "success_count": sent,
        "failed_count": failed,
        "state": state_of(alert, utc_now()),
        "acknowledged_by": alert.acknowledged_by,
        "assignee": alert.assignee,
        "snoozed_until": alert.snoozed_until,
        "resolved_at": alert.resolved_at,
    }


async def find_alert(session: AsyncSession, domains: Domains, alert_id: str) -> Alert:
    """The alert with this id, as it is stored now. Raises `NotFound`."""
    found = await session.get(Alert, alert_id.upper(), populate_existing=True) if alert_id.isprintable() else None
    if found is None or not domains.allow(found.domain):
        raise NotFound(f"No alert has the id {alert_id!r}.")
    return found


async def read_alert(session: AsyncSession, domains: Domains, alert_id: str) -> AlertDetail:
    """One alert with its deliveries, oldest first. Raises `NotFound`, and `Conflict` for one that cannot be read."""
    alert = await find_alert(session, domains, alert_id)
    of_alert = select(AlertDelivery).where(AlertDelivery.alert_id == alert.id).order_by(AlertDelivery.id)
    deliveries = (await session.scalars(of_alert)).all()
    visible = await _visible(session, domains, deliveries)
    return present_one(alert, lambda: _alert_detail(alert, deliveries, visible))


def _alert_detail(alert: Alert, deliveries: Sequence[AlertDelivery], visible: Sequence[AlertDelivery]) -> AlertDetail:
    sent = sum(delivery.status == SENT for delivery in deliveries)
    failed = sum(delivery.status == FAILED for delivery in deliveries)
    return AlertDetail(
        **_summary(alert, {alert.id: (len(deliveries), sent, failed)}),
        message=alert.message,
        execution_id=alert.execution_id,
        run_id=alert.run_id,
        metadata=alert.details,
        error_category=ErrorCategory(alert.error_category) if alert.error_category else None,
        capture_id=alert.capture_id,
        note=alert.note,
        deliveries=present_each(visible, _detail, lambda delivery: delivery),
    )


async def _visible(
    session: AsyncSession, domains: Domains, deliveries: Sequence[AlertDelivery]
) -> Sequence[AlertDelivery]:
    """The deliveries to channels that the caller may see; the others' names and receivers belong to no domain of it."""
    if not domains.is_limited:
        return deliveries
    ids = {delivery.channel_id for delivery in deliveries}
    channels = await session.execute(select(AlertChannel.id, AlertChannel.domains).where(AlertChannel.id.in_(ids)))
    visible = {channel_id for channel_id, globs in channels if domains.cover(globs)}
    return [delivery for delivery in deliveries if delivery.channel_id in visible]


def _detail(delivery: AlertDelivery) -> AlertDeliveryDetail:
    return AlertDeliveryDetail(
        id=delivery.id,
        channel_id=delivery.channel_id,
        channel_name=delivery.channel_name,
        recipient=delivery.recipient,
        event=DeliveryEvent(delivery.event or DeliveryEvent.ALERT),
        status=DeliveryStatus(delivery.status),
        attempted_at=delivery.attempted_at,
        delivered_at=delivery.delivered_at,
        error=delivery.error,
        attempt=delivery.attempt,
        next_retry_at=delivery.next_retry_at,
    )


async def read_stats(session: AsyncSession, domains: Domains, period: StatsPeriod) -> AlertStats:
    """Counts of the alerts of the last hour, day, week or month, and statistics of their deliveries."""
    since = utc_now() - PERIODS[period]
    of_domains = domains.conditions(Alert.domain)
    groups = select(Alert.severity, Alert.source, Alert.domain, func.count())
    groups = groups.where(Alert.created_at >= since, *of_domains)
    by_severity, by_source, by_domain = Counter[str](), Counter[str](), Counter[str]()
    for severity, source, domain, count in await session.execute(
        groups.group_by(Alert.severity, Alert.source, Alert.domain)
    ):
        by_severity[severity] += count
        by_source[source] += count
        if domain is not None:
            by_domain[domain] += count
    delivered = and_(AlertDelivery.status == SENT, AlertDelivery.delivery_ms.is_not(None))
    average = func.avg(case((delivered, AlertDelivery.delivery_ms)))
    outcomes = select(_count_if(SENT), _count_if(FAILED), average).where(AlertDelivery.created_at >= since)
    if of_domains:
        outcomes = outcomes.join(Alert, Alert.id == AlertDelivery.alert_id).where(*of_domains)
    sent, failed, average_ms = (await session.execute(outcomes)).one()
    return AlertStats(
        period=period,
        total_alerts=by_severity.total(),
        by_severity=dict(by_severity),
        by_source=dict(by_source.most_common()),
        by_domain=dict(by_domain.most_common()),
        delivery_success_rate=sent / (sent + failed) if sent + failed else 1.0,
        avg_delivery_time_ms=None if average_ms is None else float(average_ms),
    )
