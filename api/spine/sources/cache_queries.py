"""The cache as clients see it: pages of entries, statistics, and clearing it."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.audit.trail import changing
from spine.auth.domains import Domains
from spine.cache.garbage_collection import SECONDS_OF_A_REQUEST, ClearResult, clear
from spine.cache.maintenance import CacheMaintenance
from spine.cache.store import BlobStore
from spine.database import SessionFactory, reading
from spine.egress.fetch_failure import FetchFailure
from spine.errors import Unavailable
from spine.pagination import Page, PageRequest, make_page, paginate
from spine.schemas import ActionResponse
from spine.sources.cache_schemas import CacheEntry, CacheStats
from spine.sources.queries import find_source
from spine.tables.base import utc_now
from spine.tables.cache import HITS, MISSES, CacheBlob, CacheCounter
from spine.tables.cache import CacheEntry as CacheEntryRow
from spine.tables.presenting import present_each
from spine.tables.sources import Source


async def list_entries(
    session: AsyncSession, domains: Domains, source: str | None, page: PageRequest
) -> Page[CacheEntry]:
    """A page of entries, newest first, of all sources or of the one with this id or name. Raises `NotFound`."""
    mine = domains.conditions(Source.domain)
    if source is not None:
        mine.append(CacheEntryRow.source_id == (await find_source(session, domains, source)).id)
    wanted = select(CacheEntryRow, Source.name).join(Source, Source.id == CacheEntryRow.source_id).where(*mine)
    wanted = wanted.order_by(CacheEntryRow.cached_at.desc(), CacheEntryRow.id.desc())
    rows, total = await paginate(session, wanted, page)
    shown = present_each(rows, lambda row: _present(row[0], row[1]), lambda row: row[0])
    return make_page(shown, total, page)


def _present(entry: CacheEntryRow, source_name: str) -> CacheEntry:
    return CacheEntry(
        id=entry.id,
        source_id=entry.source_id,
        source_name=source_name,
        cache_key=entry.cache_key,
        content_hash=entry.content_hash,
        size_bytes=entry.size_bytes,
        cached_at=entry.cached_at,
        expires_at=entry.expires_at,
        fetch_id=entry.fetch_id,
        content_type=entry.content_type,
        encoding=entry.encoding,
    )


async def read_stats(session: AsyncSession, domains: Domains) -> CacheStats:
    """Statistics of the whole cache, or of what the sources of these domains have in it."""
    counters: dict[str, int] = {}
    if not domains.is_limited:
        # Reads are counted for the whole cache only.
        counters = {row.name: row.value for row in await session.scalars(select(CacheCounter))}
    hits, misses = counters.get(HITS, 0), counters.get(MISSES, 0)
    reads = max(hits + misses, 1)
    mine = domains.conditions(Source.domain)
    of_sources = select(Source.id).where(*mine)
    per_source = select(Source.name, func.count()).join(CacheEntryRow, CacheEntryRow.source_id == Source.id)
    by_source = {row[0]: row[1] for row in await session.execute(per_source.where(*mine).group_by(Source.name))}
    expired = select(func.count()).select_from(CacheEntryRow).where(CacheEntryRow.expires_at <= utc_now())
    size = select(func.sum(CacheBlob.size_bytes))
    if mine:
        expired = expired.where(CacheEntryRow.source_id.in_(of_sources))
        used = select(CacheEntryRow.content_hash).where(CacheEntryRow.source_id.in_(of_sources))
        size = size.where(CacheBlob.content_hash.in_(used))
    return CacheStats(
        total_entries=sum(by_source.values()),
        total_bytes=int(await session.scalar(size) or 0),
        hit_rate=hits / reads,
        miss_rate=misses / reads,
        expired_entries=await session.scalar(expired) or 0,
        by_source=by_source,
    )


async def clear_cache(
    sessions: SessionFactory,
    store: BlobStore,
    maintenance: CacheMaintenance,
    domains: Domains,
    source: str | None,
    expired_only: bool,
) -> ActionResponse:
    """Remove entries, of all sources or of the one with this id or name, and content that is no longer needed.

    It ends after some seconds and says what is left: content is deleted in the background, and for entries the request
    is repeated. Raises `NotFound`, and `Unavailable` when the storage cannot be reached; then the entries are removed,
    and maintenance deletes their content later.
    """
    source_id = None
    if source is not None:
        async with reading(sessions) as session:
            source_id = (await find_source(session, domains, source)).id
    async with changing("cleared", "cache", source_id or "cache", source) as change:
        try:
            cleared = await clear(sessions, store, source_id, expired_only, domains, SECONDS_OF_A_REQUEST)
        except FetchFailure as failure:
            raise Unavailable(failure.sentence) from None
        change.after = {"entries": cleared.entries, "bytes": cleared.bytes, "expired_only": expired_only}
    if cleared.contents_left:
        maintenance.wake()
    status = "partly_cleared" if cleared.entries_left else "cleared"
    return ActionResponse(id=source_id or "cache", status=status, message=_sentence(cleared))


def _sentence(cleared: ClearResult) -> str:
    entries = "1 entry" if cleared.entries == 1 else f"{cleared.entries:,} entries"
    size = "1 byte" if cleared.bytes == 1 else f"{cleared.bytes:,} bytes"
    sentence = f"{entries} and {size} were removed."
    if cleared.contents_left:
        sentence += f" The content of up to {cleared.contents_left:,} entries is being removed in the background."
    if cleared.entries_left:
        sentence += " Not all entries were removed yet; repeat the request."
    return sentence
