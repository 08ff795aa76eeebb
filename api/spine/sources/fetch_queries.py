"""Fetches as clients read them: pages of a source's fetches, and one with its details."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.errors import NotFound
from spine.pagination import Page, PageRequest, make_page, paginate
from spine.schemas import ErrorCategory
from spine.sources.schemas import BadRowDetail, FetchDetail, FetchStatus, FetchSummary, FetchTrigger
from spine.tables.sources import Fetch, Source, SourceUse

MOST_USES = 100


async def list_fetches(
    session: AsyncSession, source: Source, status: FetchStatus | None, page: PageRequest
) -> Page[FetchSummary]:
    """A page of the fetches of a source, newest first."""
    conditions = [Fetch.source_id == source.id]
    if status is not None:
        conditions.append(Fetch.status == status.value)
    rows, total = await paginate(session, select(Fetch).where(*conditions).order_by(Fetch.id.desc()), page)
    return make_page([FetchSummary(**_summary(row)) for (row,) in rows], total, page)


async def read_fetch(session: AsyncSession, fetch_id: str) -> FetchDetail:
    """One fetch. Raises `NotFound`."""
    found = None
    if fetch_id.isprintable():
        wanted = select(Fetch, Source.name).join(Source, Source.id == Fetch.source_id)
        found = (await session.execute(wanted.where(Fetch.id == fetch_id.upper()))).one_or_none()
    if found is None:
        raise NotFound(f"No fetch has the id {fetch_id!r}.")
    fetch, source_name = found
    uses = select(SourceUse.run_id).where(SourceUse.fetch_id == fetch.id).order_by(SourceUse.used_at.desc())
    runs = await session.scalars(uses.limit(MOST_USES))
    return FetchDetail(
        **_summary(fetch),
        source_name=source_name,
        trigger=FetchTrigger(fetch.trigger),
        content_hash=fetch.content_hash,
        etag=fetch.etag,
        last_modified=fetch.last_modified,
        error=fetch.error,
        error_category=ErrorCategory(fetch.error_category) if fetch.error_category else None,
        triggered_by=fetch.triggered_by,
        execution_id=fetch.execution_id,
        run_id=str(fetch.run_id) if fetch.run_id else None,
        capture_id=fetch.content_hash,
        bad_rows=fetch.bad_rows,
        bad_row_examples=[BadRowDetail.model_validate(one) for one in fetch.bad_row_examples or []],
        used_by_runs=[str(run_id) for run_id in runs],
    )


def _summary(fetch: Fetch) -> dict[str, Any]:
    return {
        "id": fetch.id,
        "source_id": fetch.source_id,
        "status": FetchStatus(fetch.status),
        "started_at": fetch.started_at,
        "completed_at": fetch.completed_at,
        "duration_ms": fetch.duration_ms,
        "content_changed": fetch.content_changed,
        "bytes_fetched": fetch.bytes_fetched,
        "rows_parsed": fetch.rows_parsed,
    }
