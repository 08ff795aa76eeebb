"""Alerts about sources: one for each problem, from the first fetch that has it to the first that does not.

A source has at most two problems: it cannot be fetched (ERROR), and some of its rows are invalid (WARNING). While the
alert of a problem is open, further fetches with it raise no other, unless a channel throttled the alert: the
first one after the throttling raises it again. The `dedup_key` of an alert names the problem.
"""

from datetime import datetime

from sqlalchemy import exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.alerts.acknowledgements import is_acknowledged
from spine.alerts.outbox import AlertEvent, put_alert
from spine.alerts.recovery import put_recovery_alert
from spine.schemas import ErrorCategory
from spine.severity import Severity
from spine.tables.alerts import THROTTLED, Alert, AlertDelivery, AlertThrottle
from spine.tables.base import utc_now
from spine.tables.sources import Fetch, Source

_FAILED, _PARTIAL = "source-failed", "source-partial"
_MOST_REASONS = 3


def failure_alert(source: Source, fetch: Fetch, now: datetime) -> AlertEvent:
    """The alert for a fetch that failed."""
    title = f"The source {source.name} could not be fetched"
    details: dict[str, object] = {"consecutive_failures": source.consecutive_failures}
    return _event(_FAILED, Severity.ERROR, title, fetch.error or "", source, fetch, now, details, fetch.error_category)


def partial_alert(source: Source, fetch: Fetch, now: datetime) -> AlertEvent:
    """The alert for a fetch that left out invalid rows."""
    bad, rows = fetch.bad_rows or 0, (fetch.bad_rows or 0) + (fetch.rows_parsed or 0)
    lines = [f"{bad:,} of {rows:,} rows are invalid and were left out."]
    for example in (fetch.bad_row_examples or [])[:_MOST_REASONS]:
        lines.append(f"{example['file']}, line {example['line']:,}: {example['reason']}")
    title = f"The source {source.name} has invalid rows"
    details: dict[str, object] = {"bad_rows": bad, "rows_parsed": fetch.rows_parsed}
    category = ErrorCategory.PARSE.value
    return _event(_PARTIAL, Severity.WARNING, title, "\n".join(lines), source, fetch, now, details, category)


async def put_problem(session: AsyncSession, event: AlertEvent) -> None:
    """Store the alert of a problem in the caller's transaction, which has locked the source, unless one is open."""
    is_open = (Alert.dedup_key == event.dedup_key, Alert.resolved_at.is_(None))
    newest = await session.scalar(select(Alert.id).where(*is_open).order_by(Alert.id.desc()).limit(1))
    if newest is None or await _was_held_back(session, newest, event):
        await put_alert(session, event)


async def _was_held_back(session: AsyncSession, alert_id: str, event: AlertEvent) -> bool:
    """Whether a channel throttled this alert and would not throttle it now: it may have sent no such alert."""
    if await is_acknowledged(session, event.problem):
        return False
    is_quiet = exists().where(
        AlertThrottle.channel_id == AlertDelivery.channel_id,
        AlertThrottle.key_hash == event.key_hash,
        AlertThrottle.quiet_until > utc_now(),
    )
    held_back = (AlertDelivery.alert_id == alert_id, AlertDelivery.status == THROTTLED, ~is_quiet)
    return (await session.scalars(select(AlertDelivery.id).where(*held_back).limit(1))).first() is not None


async def put_recovery(session: AsyncSession, source: Source, *, is_partial: bool) -> None:
    """Resolve the open alerts of a source that was fetched, and inform the channels that received them.

    That about invalid rows stays open if the fetch `is_partial`.
    """
    title = f"RESOLVED: the source {source.name} can be fetched again"
    await _resolve(session, source, _FAILED, title, "A later fetch succeeded.")
    if not is_partial:
        title = f"RESOLVED: the source {source.name} has no invalid rows any more"
        await _resolve(session, source, _PARTIAL, title, "A later fetch found no invalid rows.")


async def _resolve(session: AsyncSession, source: Source, problem: str, title: str, sentence: str) -> None:
    # Found by the source's id, because its name may have changed since.
    mine = (Alert.dedup_key == f"{problem}:{source.id}", Alert.resolved_at.is_(None))
    closing = update(Alert).where(*mine).values(resolved_at=utc_now()).returning(Alert)
    resolved = (await session.scalars(closing, execution_options={"synchronize_session": False})).all()
    if resolved:
        await put_recovery_alert(session, resolved, title, sentence)


def _event(
    problem: str,
    severity: Severity,
    title: str,
    message: str,
    source: Source,
    fetch: Fetch,
    now: datetime,
    details: dict[str, object],
    category: str | None,
) -> AlertEvent:
    return AlertEvent(
        severity=severity,
        title=title,
        message=message,
        source=source.name,
        # A run that is retried by hand and has the problem again is another event.
        cause=f"{problem}:{fetch.id}:{now.isoformat()}",
        domain=source.domain,
        details={"fetch_id": fetch.id, "source_id": source.id, **details},
        run_id=str(fetch.run_id) if fetch.run_id else None,
        execution_id=fetch.execution_id,
        error_category=category,
        dedup_key=f"{problem}:{source.id}",
    )
