"""How a fetch ended: its row, the statistics of its source, and the alert that goes with a failure or its end."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.alerts.outbox import AlertEvent, put_alert
from spine.alerts.recovery import put_recovery_alert
from spine.severity import Severity
from spine.tables.alerts import Alert
from spine.tables.base import utc_now
from spine.tables.sources import FAILED, PARTIAL, SUCCESS, Fetch, Source

LONGEST_ERROR = 2_000


@dataclass(frozen=True)
class Ending:
    """What came of a fetch; `error` and its category belong to a failure."""

    error: str | None = None
    error_category: str | None = None
    content_hash: str | None = None
    etag: str | None = None
    last_modified: datetime | None = None
    bytes_fetched: int = 0
    # How many contents that was, of which each may be empty.
    downloads: int = 0
    rows_parsed: int | None = None
    bad_rows: int = 0
    bad_row_examples: Sequence[dict[str, Any]] = field(default=())
    # Set where another fetch of the same source did the work.
    joined: str | None = None
    # The version of the source's configuration that the content was read under.
    config_version: int | None = None
    # Whether nobody is told of a failure, because a person wanted it so.
    is_silent: bool = False

    @property
    def status(self) -> str:
        """The status that says so."""
        if self.error is not None:
            return FAILED
        return PARTIAL if self.bad_rows else SUCCESS

    def silent(self) -> "Ending":
        """The same, of which nobody is told."""
        return replace(self, is_silent=True)


async def write_ending(session: AsyncSession, source: Source, fetch: Fetch, ending: Ending) -> None:
    """Write down an ending in the caller's transaction, which holds both rows."""
    now = utc_now()
    fetch.status, fetch.completed_at = ending.status, now
    fetch.duration_ms = int((now - (fetch.started_at or now)).total_seconds() * 1000)
    fetch.error = ending.error[:LONGEST_ERROR] if ending.error else None
    fetch.error_category = ending.error_category
    fetch.joined = ending.joined
    fetch.bytes_fetched = ending.bytes_fetched
    source.last_fetch_at, source.last_fetch_status, source.last_fetch_error = now, fetch.status, fetch.error
    source.total_fetches += 1
    if ending.error is None:
        _write_content(source, fetch, ending)
        await _tell_success(session, source)
    else:
        if not ending.is_silent:
            source.consecutive_failures += 1
            await put_alert(session, _alert(source, fetch, now))


def _write_content(source: Source, fetch: Fetch, ending: Ending) -> None:
    fetch.content_hash, fetch.etag, fetch.last_modified = ending.content_hash, ending.etag, ending.last_modified
    fetch.rows_parsed, fetch.bad_rows = ending.rows_parsed, ending.bad_rows
    fetch.bad_row_examples = list(ending.bad_row_examples) or None
    fetch.config_version = ending.config_version
    fetch.content_changed = ending.joined is None and ending.content_hash != source.last_content_hash
    source.last_content_hash, source.last_etag = ending.content_hash, ending.etag
    source.last_modified = ending.last_modified
    source.consecutive_failures = 0
    source.good_fetches += 1
    source.fetch_ms += fetch.duration_ms or 0


def _key(source: Source) -> str:
    return f"source-failed:{source.id}"


def _alert(source: Source, fetch: Fetch, now: datetime) -> AlertEvent:
    return AlertEvent(
        severity=Severity.ERROR,
        title=f"The source {source.name} could not be fetched",
        message=fetch.error or "",
        source=source.name,
        # A run that is retried by hand and fails again is another failure.
        cause=f"source-failed:{fetch.id}:{now.isoformat()}",
        domain=source.domain,
        details={"fetch_id": fetch.id, "source_id": source.id, "consecutive_failures": source.consecutive_failures},
        run_id=str(fetch.run_id) if fetch.run_id else None,
        execution_id=fetch.execution_id,
        error_category=fetch.error_category,
        dedup_key=_key(source),
    )


async def _tell_success(session: AsyncSession, source: Source) -> None:
    """Tell those who heard of failures that the source can be fetched again."""
    # Not by the name: it may have been another one then.
    mine = (Alert.dedup_key == _key(source), Alert.resolved_at.is_(None))
    closing = update(Alert).where(*mine).values(resolved_at=utc_now()).returning(Alert)
    resolved = (await session.scalars(closing, execution_options={"synchronize_session": False})).all()
    if resolved:
        title = f"RESOLVED: the source {source.name} can be fetched again"
        await put_recovery_alert(session, resolved, title, "A later fetch succeeded.")
