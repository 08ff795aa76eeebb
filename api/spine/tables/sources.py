"""The tables of sources: where data comes from, its fetches, and which runs used their content."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from spine.tables.base import Base, StoredJson, UtcDateTime, new_id, utc_now

ULID = String(26)
PENDING, RUNNING, SUCCESS, PARTIAL, FAILED = "PENDING", "RUNNING", "SUCCESS", "PARTIAL", "FAILED"
OPEN = (PENDING, RUNNING)
GOOD = (SUCCESS, PARTIAL)


class Source(Base):
    """Where data comes from, the result of the last fetch, and statistics over all fetches that have ended."""

    __tablename__ = "sources"
    record = "source"
    __table_args__ = (Index("ix_sources_source_type", "source_type", "id"), Index("ix_sources_domain", "domain", "id"))

    id: Mapped[str] = mapped_column(ULID, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    source_type: Mapped[str] = mapped_column(String(20))
    # Secrets in it are sealed: see `spine.secrets.sealed`.
    config: Mapped[dict[str, Any]] = mapped_column(StoredJson(dict))
    domain: Mapped[str | None] = mapped_column(String(255))
    parser_type: Mapped[str | None] = mapped_column(String(20))
    parser_config: Mapped[dict[str, Any] | None] = mapped_column(StoredJson(dict, nullable=True))
    # Counts the changes of `config` and of how content is parsed.
    config_version: Mapped[int] = mapped_column(default=1)
    enabled: Mapped[bool]
    # The registered connection that a database source reads over.
    connection_id: Mapped[str | None] = mapped_column(ForeignKey("database_connections.id"), index=True)
    # The Prefect deployment that fetches it on a schedule; Prefect stores the timing.
    schedule_id: Mapped[UUID | None] = mapped_column(Uuid)
    last_fetch_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_fetch_status: Mapped[str | None] = mapped_column(String(10))
    last_fetch_error: Mapped[str | None] = mapped_column(Text)
    last_content_hash: Mapped[str | None] = mapped_column(String(64))
    last_etag: Mapped[str | None] = mapped_column(Text)
    last_modified: Mapped[datetime | None] = mapped_column(UtcDateTime)
    consecutive_failures: Mapped[int] = mapped_column(default=0)
    total_fetches: Mapped[int] = mapped_column(default=0)
    good_fetches: Mapped[int] = mapped_column(default=0)
    # The sum over successful fetches, for their average.
    fetch_ms: Mapped[int] = mapped_column(BigInteger, default=0)
    # The fetch that may read it now: a claim, void when that fetch is abandoned.
    claimed_by: Mapped[str | None] = mapped_column("reader", ULID)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    created_by: Mapped[str | None] = mapped_column(String(255))


class Fetch(Base):
    """One fetch of a source, from the request to the result. Ids are in the order of time."""

    __tablename__ = "fetches"
    record = "fetch"
    __table_args__ = (
        Index("ix_fetches_source_id", "source_id", "id"),
        Index("ix_fetches_status", "source_id", "status", "id"),
        Index(
            "ix_fetches_open",
            "created_at",
            postgresql_where=text("status IN ('PENDING', 'RUNNING')"),
            sqlite_where=text("status IN ('PENDING', 'RUNNING')"),
        ),
    )

    id: Mapped[str] = mapped_column(ULID, primary_key=True, default=new_id)
    source_id: Mapped[str] = mapped_column(ForeignKey("sources.id", ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(String(10))
    trigger: Mapped[str] = mapped_column(String(20))
    triggered_by: Mapped[str | None] = mapped_column(String(255))
    force: Mapped[bool] = mapped_column(default=False)
    # The version of its source when it started; after a success, the version that the content was read with.
    config_version: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    duration_ms: Mapped[int | None] = mapped_column(BigInteger)
    content_changed: Mapped[bool] = mapped_column(default=False)
    bytes_fetched: Mapped[int | None] = mapped_column(BigInteger)
    rows_parsed: Mapped[int | None] = mapped_column(BigInteger)
    # The number of invalid rows, which are skipped, and the reasons for the first of them.
    bad_rows: Mapped[int | None] = mapped_column(BigInteger)
    bad_row_examples: Mapped[list[dict[str, Any]] | None] = mapped_column(StoredJson(list, dict, nullable=True))
    content_hash: Mapped[str | None] = mapped_column(String(64))
    etag: Mapped[str | None] = mapped_column(Text)
    last_modified: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str | None] = mapped_column(Text)
    error_category: Mapped[str | None] = mapped_column(String(20))
    execution_id: Mapped[str | None] = mapped_column(String(255))
    run_id: Mapped[UUID | None] = mapped_column(Uuid, index=True)
    # When its lease expires, while it is RUNNING.
    lease_until: Mapped[datetime | None] = mapped_column("alive_until", UtcDateTime)
    # When the grace period ends in which it can still renew a lease that has expired.
    grace_until: Mapped[datetime | None] = mapped_column("last_call", UtcDateTime)
    # The fetch that read the content, when this one waited for it.
    joined: Mapped[str | None] = mapped_column(ULID)


class SourceUse(Base):
    """A flow run that used the content of a fetch."""

    __tablename__ = "source_uses"
    record = "source use"

    run_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    fetch_id: Mapped[str] = mapped_column(ForeignKey("fetches.id", ondelete="CASCADE"), primary_key=True, index=True)
    # SHA-256 of the content, hex.
    capture_id: Mapped[str] = mapped_column(String(64), index=True)
    used_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
