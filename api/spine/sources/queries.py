"""Sources as clients read them: one by its id or name, and pages of them."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.auth.domains import Domains, hidden
from spine.pagination import Page, PageRequest, make_page, paginate
from spine.sources.schemas import FetchStatus, SourceSummary, SourceType
from spine.tables.presenting import present_each
from spine.tables.sources import Source


@dataclass(frozen=True)
class SourceQuery:
    """The filters of `GET /sources`, combined with AND."""

    # What the caller may see.
    domains: Domains
    source_type: SourceType | None = None
    domain: str | None = None
    enabled: bool | None = None


async def find_source(session: AsyncSession, domains: Domains, id_or_name: str, *, to_change: bool = False) -> Source:
    """The source with this id, or else with this name.

    With `to_change` its row is locked. Raises `NotFound`, also for a source of another domain.
    """
    found: Source | None = None
    if id_or_name.isprintable():
        for condition in (Source.id == id_or_name.upper(), Source.name == id_or_name):
            wanted = select(Source).where(condition)
            found = found or await session.scalar(wanted.with_for_update() if to_change else wanted)
    if found is None or not domains.allow(found.domain):
        raise hidden("source", id_or_name)
    return found


async def list_sources(session: AsyncSession, query: SourceQuery, page: PageRequest) -> Page[SourceSummary]:
    """A page of sources, newest first."""
    conditions = query.domains.conditions(Source.domain)
    if query.source_type is not None:
        conditions.append(Source.source_type == query.source_type.value)
    if query.domain is not None:
        conditions.append(Source.domain == query.domain)
    if query.enabled is not None:
        conditions.append(Source.enabled.is_(query.enabled))
    wanted = select(Source).where(*conditions).order_by(Source.created_at.desc(), Source.id.desc())
    rows, total = await paginate(session, wanted, page)
    shown = present_each(rows, lambda row: SourceSummary(**summary_of(row[0])), lambda row: row[0])
    return make_page(shown, total, page)


def summary_of(source: Source) -> dict[str, Any]:
    """The fields of `SourceSummary`."""
    return {
        "id": source.id,
        "name": source.name,
        "source_type": SourceType(source.source_type),
        "domain": source.domain,
        "enabled": source.enabled,
        "last_fetch_at": source.last_fetch_at,
        "last_fetch_status": FetchStatus(source.last_fetch_status) if source.last_fetch_status else None,
        "consecutive_failures": source.consecutive_failures,
        "created_at": source.created_at,
    }
