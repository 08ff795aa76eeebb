"""The cache entries of a source: the content that its last fetch stored, in the order of the source."""

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
from spine.tables.cache import HITS, MISSES, CacheBlob, CacheCounter, CacheEntry, CacheLease

# `last_used_at` is no more precise than this, so that reading causes few writes.
_PRECISION_OF_USE = timedelta(minutes=1)


@dataclass(frozen=True)
class NewEntry:
    """The content of one key, as a fetch found it; `content_hash` is SHA-256 in hex, `validators` as stored.

    `rows` is None if the rows of the content are not counted.
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
    def from_row(cls, entry: CacheEntry) -> "NewEntry":
        """The values of a stored entry, to be stored again if its content is unchanged."""
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
        """The same content with the new validators that its source sent."""
        return replace(self, validators=validators)


def content_hash_of(entries: Sequence[NewEntry], *, is_list: bool) -> str:
    """SHA-256 in hex of the content of a source; for a list of files, of their keys and hashes in order."""
    if not is_list:
        return entries[0].content_hash
    lines = (f"{entry.content_hash}  {entry.key}\n" for entry in entries)
    return sha256("".join(lines).encode()).hexdigest()


async def current_entries(session: AsyncSession, source_id: str) -> list[CacheEntry]:
    """The entries of a source in the order of the source."""
    entries = select(CacheEntry).where(CacheEntry.source_id == source_id).order_by(CacheEntry.position)
    return list((await session.scalars(entries)).all())


async def store_entries(
    session: AsyncSession,
    source_id: str,
    fetch_id: str,
    entries: Sequence[NewEntry],
    expires_at: datetime | None,
) -> None:
    """Replace the entries of a source by these, whose keys are all different.

    The caller has locked the row of the source, and has leases on all content under `fetch_id`. An entry whose content
    is unchanged keeps its id, `cached_at` and `fetch_id`. Raises `FetchFailure` if a lease was lost, because the
    content may be gone.
    """
    sizes = {entry.content_hash: entry.size_bytes for entry in entries}
    await _lock_blobs(session, sizes)
    await _check_leases(session, fetch_id, sorted(sizes))
    rows = {row.key_hash: row for row in await _lock_entries(session, source_id)}
    for position, entry in enumerate(entries):
        key_hash = _key_hash(entry.key)
        row = rows.pop(key_hash, None)
        if row is None:
            row = CacheEntry(source_id=source_id, cache_key=entry.key, key_hash=key_hash)
            session.add(row)
        if row.content_hash != entry.content_hash:
            row.id, row.cached_at, row.fetch_id = new_id(), utc_now(), fetch_id
        row.position, row.expires_at = position, expires_at
        _set_values(row, entry)
    for batch in batches([row.id for row in rows.values()]):
        await session.execute(delete(CacheEntry).where(CacheEntry.id.in_(batch)))
    await session.flush()


def _set_values(row: CacheEntry, entry: NewEntry) -> None:
    row.content_hash, row.size_bytes, row.name = entry.content_hash, entry.size_bytes, entry.name
    row.content_type, row.encoding = entry.content_type, entry.encoding
    row.validators, row.rows, row.bad_rows = dict(entry.validators), entry.rows, entry.bad_rows


def _key_hash(key: str) -> str:
    return sha256(key.encode()).hexdigest()


async def _lock_blobs(session: AsyncSession, sizes: Mapping[str, int]) -> None:
    """Lock the rows of all contents, in the lock order of `spine.cache.leases`, and store their sizes."""
    now = utc_now()
    for batch in batches(sorted(sizes)):
        values = [{"content_hash": one, "size_bytes": sizes[one], "last_used_at": now} for one in batch]
        inserting = upsert(session, CacheBlob).values(values)
        update_ = {"size_bytes": inserting.excluded.size_bytes, "last_used_at": now}
        await session.execute(inserting.on_conflict_do_update(index_elements=["content_hash"], set_=update_))


async def _check_leases(session: AsyncSession, holder: str, hashes: Sequence[str]) -> None:
    for batch in batches(hashes):
        leased = select(CacheLease.content_hash).where(CacheLease.holder == holder, CacheLease.content_hash.in_(batch))
        # An expired lease suffices while its row exists, because garbage collection deletes the leases of content
        # before the content. An entry suffices, too, because content with entries is not deleted.
        named = select(CacheEntry.content_hash).where(CacheEntry.content_hash.in_(batch))
        kept = set((await session.scalars(union(leased, named))).all())
        if not kept.issuperset(batch):
            sentence = "The fetch stalled and lost its lease, and the cache deleted the content that it had downloaded."
            raise FetchFailure(ErrorCategory.STORAGE, sentence, transient=True)


async def _lock_entries(session: AsyncSession, source_id: str) -> Sequence[CacheEntry]:
    # Locked, because eviction deletes entries of any source, except those that are locked.
    entries = select(CacheEntry).where(CacheEntry.source_id == source_id).order_by(CacheEntry.id).with_for_update()
    return (await session.scalars(entries, execution_options={"populate_existing": True})).all()


async def count_read(session: AsyncSession, *, hit: bool) -> None:
    """Count one read of the current content of a source: a hit if it needed no download."""
    inserting = upsert(session, CacheCounter).values(name=HITS if hit else MISSES, value=1)
    increment = {"value": CacheCounter.value + 1}
    await session.execute(inserting.on_conflict_do_update(index_elements=["name"], set_=increment))


async def touch(session: AsyncSession, content_hashes: Sequence[str]) -> None:
    """Set `last_used_at` of contents to now, unless it is under a minute old or another transaction is setting it."""
    now = utc_now()
    for batch in batches(sorted(set(content_hashes))):
        stale = select(CacheBlob.content_hash).where(
            CacheBlob.content_hash.in_(batch), CacheBlob.last_used_at < now - _PRECISION_OF_USE
        )
        locked = (await session.scalars(stale.with_for_update(skip_locked=True, key_share=True))).all()
        if locked:
            await session.execute(update(CacheBlob).where(CacheBlob.content_hash.in_(locked)).values(last_used_at=now))
