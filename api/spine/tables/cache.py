"""The tables of the cache: the entries of each source, the stored content, and the leases on it."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from spine.tables.base import Base, StoredJson, UtcDateTime, new_id, utc_now

ULID = String(26)
# SHA-256, hex.
HASH = String(64)
HITS, MISSES = "hits", "misses"


class CacheBlob(Base):
    """Content that is stored or being published. Its row is the lock of the content: see `spine.cache.leases`."""

    __tablename__ = "cache_blobs"
    record = "cache blob"

    content_hash: Mapped[str] = mapped_column(HASH, primary_key=True)
    # Null until an entry refers to it.
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    last_used_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now, index=True)


class CacheEntry(Base):
    """The last good content of one key of a source; changed content gets a new id."""

    __tablename__ = "cache_entries"
    record = "cache entry"
    __table_args__ = (
        # A key may be longer than an index of PostgreSQL accepts.
        Index("uq_cache_entries_source_id_key_hash", "source_id", "key_hash", unique=True),
        Index("ix_cache_entries_cached_at", "cached_at", "id"),
    )

    id: Mapped[str] = mapped_column(ULID, primary_key=True, default=new_id)
    source_id: Mapped[str] = mapped_column(ForeignKey("sources.id", ondelete="CASCADE"))
    cache_key: Mapped[str] = mapped_column(Text)
    # SHA-256 of the key, hex.
    key_hash: Mapped[str] = mapped_column(HASH)
    # The order of the source.
    position: Mapped[int]
    content_hash: Mapped[str] = mapped_column(ForeignKey("cache_blobs.content_hash"), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    cached_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    # Null for content that never becomes stale by time.
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # The fetch that downloaded this content.
    fetch_id: Mapped[str | None] = mapped_column(ULID)
    content_type: Mapped[str | None] = mapped_column(Text)
    encoding: Mapped[str | None] = mapped_column(Text)
    # The file name for downloads.
    name: Mapped[str] = mapped_column(Text)
    validators: Mapped[dict[str, Any]] = mapped_column(StoredJson(dict))
    rows: Mapped[int | None] = mapped_column(BigInteger)
    bad_rows: Mapped[int] = mapped_column(BigInteger, default=0)


class CacheLease(Base):
    """A fetch or a reader needs content until then, whether or not an entry refers to it."""

    __tablename__ = "cache_holds"
    record = "cache lease"

    content_hash: Mapped[str] = mapped_column(ForeignKey("cache_blobs.content_hash"), primary_key=True)
    # The id of a fetch or of a reader.
    holder: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    until: Mapped[datetime] = mapped_column(UtcDateTime)


class CacheCounter(Base):
    """The numbers of reads of current content without a download, and with one."""

    __tablename__ = "cache_counters"
    record = "cache counter"

    name: Mapped[str] = mapped_column(String(20), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger, default=0)
