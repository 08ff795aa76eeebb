"""Fetches as clients read them: pages of a source's fetches, and one with its details."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.auth.domains import Domains
from spine.errors import NotFound
from spine.names import domains_in
from spine.pagination import Page, PageRequest, make_page, paginate
from spine.prefect.client import Prefect
from spine.prefect.filters import RunFilter
from spine.prefect.transport import texts
from spine.schemas import ErrorCategory
from spine.sources.schemas import BadRowDetail, FetchDetail, FetchStatus, FetchSummary, FetchTrigger
from spine.tables.presenting import present_each, present_one
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
    shown = present_each(rows, lambda row: FetchSummary(**_summary(row[0])), lambda row: row[0])
    return make_page(shown, total, page)


async def read_fetch(session: AsyncSession, prefect: Prefect, domains: Domains, fetch_id: str) -> FetchDetail:
    """One fetch.

    Raises `NotFound`, also for a fetch of a source of another domain, and `Conflict` for one that cannot be read.
    """
    found = None
    if fetch_id.isprintable():
        wanted = select(Fetch, Source.name).join(Source, Source.id == Fetch.source_id)
        wanted = wanted.where(*domains.conditions(Source.domain))
        found = (await session.execute(wanted.where(Fetch.id == fetch_id.upper()))).one_or_none()
    if found is None:
        raise NotFound(f"No fetch has the id {fetch_id!r}.")
    fetch, source_name = found
    uses = select(SourceUse.run_id).where(SourceUse.fetch_id == fetch.id).order_by(SourceUse.used_at.desc())
    runs = await _visible(prefect, domains, (await session.scalars(uses.limit(MOST_USES))).all())
    return present_one(fetch, lambda: _detail(fetch, source_name, runs))


def _detail(fetch: Fetch, source_name: str, runs: Sequence[UUID]) -> FetchDetail:
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


async def _visible(prefect: Prefect, domains: Domains, run_ids: Sequence[UUID]) -> Sequence[UUID]:
    """Those of the runs that a credential may see."""
    if not domains.is_limited or not run_ids:
        return run_ids
    runs = await prefect.all_runs(RunFilter(runs={"id": {"any_": texts(run_ids)}}))
    seen = {run.id for run in runs if domains.allow_any(domains_in(run.tags))}
    return [run_id for run_id in run_ids if run_id in seen]


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
