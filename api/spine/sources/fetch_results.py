"""The result of a fetch: written to its row and its source's statistics, with the alert that a problem raises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from spine.oddities import ODDITIES
from spine.schemas import ErrorCategory
from spine.sources.fetch_alerts import failure_alert, partial_alert, put_problem, put_recovery
from spine.tables.base import utc_now
from spine.tables.sources import FAILED, PARTIAL, SUCCESS, Fetch, Source

LONGEST_ERROR = 2_000


@dataclass(frozen=True)
class FetchResult:
    """The result of a fetch: `error` and its category after a failure, all else after a success."""

    error: str | None = None
    error_category: ErrorCategory | None = None
    # False for a failure that a person caused on purpose.
    raises_alert: bool = True
    # SHA-256, hex.
    content_hash: str | None = None
    # Whether the source's last successful fetch had other content; known once the result is recorded.
    content_changed: bool = False
    etag: str | None = None
    last_modified: datetime | None = None
    bytes_fetched: int = 0
    # How many contents were downloaded. Each of them may be empty.
    downloads: int = 0
    rows_parsed: int | None = None
    bad_rows: int = 0
    bad_row_examples: Sequence[Mapping[str, Any]] = ()
    # The fetch that read the content, when this one waited for it.
    joined: str | None = None
    # The version of the source's configuration that the content was read with.
    config_version: int | None = None

    @property
    def status(self) -> str:
        """SUCCESS, PARTIAL or FAILED."""
        if self.error is not None:
            return FAILED
        return PARTIAL if self.bad_rows else SUCCESS

    @classmethod
    def from_row(cls, fetch: Fetch) -> "FetchResult":
        """The result that is recorded in the row of a fetch."""
        return cls(
            error=fetch.error,
            error_category=_category_of(fetch),
            content_hash=fetch.content_hash,
            content_changed=fetch.content_changed,
            etag=fetch.etag,
            last_modified=fetch.last_modified,
            bytes_fetched=fetch.bytes_fetched or 0,
            rows_parsed=fetch.rows_parsed,
            bad_rows=fetch.bad_rows or 0,
            bad_row_examples=fetch.bad_row_examples or (),
            joined=fetch.joined,
            config_version=fetch.config_version,
        )


def _category_of(fetch: Fetch) -> ErrorCategory | None:
    try:
        return ErrorCategory(fetch.error_category) if fetch.error_category else None
    except ValueError:
        ODDITIES.found(Fetch.record, fetch.id, "its error category is not one that Spine knows")
        return ErrorCategory.UNKNOWN


async def record_result(session: AsyncSession, source: Source, fetch: Fetch, result: FetchResult) -> None:
    """Write a result in the caller's transaction, which has locked both rows."""
    now = utc_now()
    fetch.status, fetch.completed_at = result.status, now
    fetch.duration_ms = int((now - (fetch.started_at or now)).total_seconds() * 1000)
    fetch.error = result.error[:LONGEST_ERROR] if result.error else None
    fetch.error_category = result.error_category.value if result.error_category else None
    fetch.joined = result.joined
    fetch.bytes_fetched = result.bytes_fetched
    source.last_fetch_at, source.last_fetch_status, source.last_fetch_error = now, fetch.status, fetch.error
    source.total_fetches += 1
    if result.error is None:
        _record_content(source, fetch, result)
        await put_recovery(session, source, is_partial=result.status == PARTIAL)
        if result.status == PARTIAL:
            await put_problem(session, partial_alert(source, fetch, now))
    elif result.raises_alert:
        source.consecutive_failures += 1
        await put_problem(session, failure_alert(source, fetch, now))


def _record_content(source: Source, fetch: Fetch, result: FetchResult) -> None:
    fetch.content_hash, fetch.etag, fetch.last_modified = result.content_hash, result.etag, result.last_modified
    fetch.rows_parsed, fetch.bad_rows = result.rows_parsed, result.bad_rows
    fetch.bad_row_examples = [dict(example) for example in result.bad_row_examples] or None
    fetch.config_version = result.config_version
    fetch.content_changed = result.joined is None and result.content_hash != source.last_content_hash
    source.last_content_hash, source.last_etag = result.content_hash, result.etag
    source.last_modified = result.last_modified
    source.consecutive_failures = 0
    source.good_fetches += 1
    source.fetch_ms += fetch.duration_ms or 0
