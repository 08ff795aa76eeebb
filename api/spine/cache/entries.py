"""The entries of a source: what a fetch brought, in the order of the source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import delete, select, union, update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.cache.statements import batches, upsert
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.tables.base import new_id, utc_now
from spine.tables.cache import HITS, MISSES, CacheBlob, CacheCounter, CacheEntry, CacheHold

# Last uses are told apart no finer than this, so that reading writes little.
_TOUCHED_AFTER = timedelta(minutes=1)


@dataclass(frozen=True)
class NewEntry:
    """The content of one key as a fetch found it; `content_hash` is SHA-256 in hex, `validators` as stored.

    `rows` is None for content whose rows are not counted.
    """

    key: str
    name: str
    content_hash: str
    size_bytes: int
    content_type: str | None
    encoding: str | None
    validators: Mapping[str, Any]
    rows: int | None
    bad_rows: int

    @classmethod
    def of(cls, entry: CacheEntry) -> "NewEntry":
        """What is known of an entry, to be stored again when it is unchanged."""
        return cls(
            key=entry.cache_key,
            name=entry.name,
            content_hash=entry.content_hash,
            size_bytes=entry.size_bytes,
            content_type=entry.content_type,
            encoding=entry.encoding,
            validators=entry.validators,
            rows=entry.rows,
            bad_rows=entry.bad_rows,
        )

    def with_validators(self, validators: Mapping[str, Any]) -> "NewEntry":
        """The same content, about which its source says something new."""
        return replace(self, validators=validators)


def content_hash_of(entries: Sequence[NewEntry], *, is_list: bool) -> str:
    """SHA-256 in hex of the content of a source; of one with many files, of their keys and hashes in order."""
    if not is_list:
        return entries[0].content_hash
    lines = (f"{entry.content_hash}  {entry.key}\n" for entry in entries)
    return sha256("".join(lines).encode()).hexdigest()


async def current_entries(session: AsyncSession, source_id: str) -> list[CacheEntry]:
    """The entries of a source in the order of the source."""
    mine = select(CacheEntry).where(CacheEntry.source_id == source_id).order_by(CacheEntry.position)
    return list((await session.scalars(mine)).all())


async def store_entries(
    session: AsyncSession,
    source_id: str,
    fetch_id: str,
    entries: Sequence[NewEntry],
    expires_at: datetime | None,
) -> None:
    """Make the entries of a source exactly these, whose keys are all different.

    The caller has locked the source's row, and holds all content as `fetch_id`. An entry whose content is the same
    keeps its id, the time when it was cached and the fetch that brought it. Raises `FetchFailure` when content was no
    longer held, so that it may be gone.
    """
    sizes = {entry.content_hash: entry.size_bytes for entry in entries}
    await _refresh_blobs(session, sizes)
    await _check_held(session, fetch_id, sorted(sizes))
    rows = {row.key_hash: row for row in await _fresh_entries(session, source_id)}
    for position, entry in enumerate(entries):
        key_hash = _key_hash(entry.key)
        row = rows.pop(key_hash, None)
        if row is None:
            row = CacheEntry(source_id=source_id, cache_key=entry.key, key_hash=key_hash)
            session.add(row)
        if row.content_hash != entry.content_hash:
            row.id, row.cached_at, row.fetch_id = new_id(), utc_now(), fetch_id
        row.position, row.expires_at = position, expires_at
        _describe(row, entry)
    for gone in batches([row.id for row in rows.values()]):
        await session.execute(delete(CacheEntry).where(CacheEntry.id.in_(gone)))
    await session.flush()


def _describe(row: CacheEntry, entry: NewEntry) -> None:
    row.content_hash, row.size_bytes, row.name = entry.content_hash, entry.size_bytes, entry.name
    row.content_type, row.encoding = entry.content_type, entry.encoding
    row.validators, row.rows, row.bad_rows = dict(entry.validators), entry.rows, entry.bad_rows


def _key_hash(key: str) -> str:
    return sha256(key.encode()).hexdigest()


async def _refresh_blobs(session: AsyncSession, sizes: Mapping[str, int]) -> None:
    """Lock the rows of all contents, in the order in which everybody locks several of them."""
    now = utc_now()
    for some in batches(sorted(sizes)):
        values = [{"content_hash": one, "size_bytes": sizes[one], "last_used_at": now} for one in some]
        refreshing = upsert(session, CacheBlob).values(values)
        seen = {"size_bytes": refreshing.excluded.size_bytes, "last_used_at": now}
        await session.execute(refreshing.on_conflict_do_update(index_elements=["content_hash"], set_=seen))


async def _check_held(session: AsyncSession, holder: str, hashes: Sequence[str]) -> None:
    for some in batches(hashes):
        held = select(CacheHold.content_hash).where(CacheHold.holder == holder, CacheHold.content_hash.in_(some))
        # A lapsed hold that is still there will do: who deletes content deletes the holds on it first. So will an
        # entry, as content with entries is not deleted.
        named = select(CacheEntry.content_hash).where(CacheEntry.content_hash.in_(some))
        kept = set((await session.scalars(union(held, named))).all())
        if not kept.issuperset(some):
            sentence = "Content was given up by the cache before it was written down, as its fetch stood still."
            raise FetchFailure(ErrorCategory.STORAGE, sentence, transient=True)


async def _fresh_entries(session: AsyncSession, source_id: str) -> Sequence[CacheEntry]:
    # Locked, as who gives content up removes entries of any source, but none that is locked.
    mine = select(CacheEntry).where(CacheEntry.source_id == source_id).order_by(CacheEntry.id).with_for_update()
    return (await session.scalars(mine, execution_options={"populate_existing": True})).all()


async def count_read(session: AsyncSession, *, hit: bool) -> None:
    """Count that somebody wanted the current content of a source: a hit when that needed no download."""
    counting = upsert(session, CacheCounter).values(name=HITS if hit else MISSES, value=1)
    more = {"value": CacheCounter.value + 1}
    await session.execute(counting.on_conflict_do_update(index_elements=["name"], set_=more))


async def touch(session: AsyncSession, content_hashes: Sequence[str]) -> None:
    """Note that contents are used now, unless that was noted within the last minute or somebody is about to."""
    now = utc_now()
    for some in batches(sorted(set(content_hashes))):
        stale = select(CacheBlob.content_hash).where(
            CacheBlob.content_hash.in_(some), CacheBlob.last_used_at < now - _TOUCHED_AFTER
        )
        mine = (await session.scalars(stale.with_for_update(skip_locked=True, key_share=True))).all()
        if mine:
            await session.execute(update(CacheBlob).where(CacheBlob.content_hash.in_(mine)).values(last_used_at=now))
