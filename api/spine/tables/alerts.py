"""The tables of alerts: channels, alerts, their deliveries, what is throttled, and what is acknowledged."""

from datetime import datetime
from types import NoneType
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Text, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from spine.tables.base import Base, FreeFormJson, StoredJson, UtcDateTime, new_id, utc_now

ULID = String(26)
PENDING, SENT, FAILED, THROTTLED = "PENDING", "SENT", "FAILED", "THROTTLED"
# What a delivery reports besides the alert itself.
ACKNOWLEDGE = "ACKNOWLEDGE"


class AlertChannel(Base):
    """A channel: where alerts go, which ones, and the result of the latest attempts."""

    __tablename__ = "alert_channels"
    record = "channel"

    id: Mapped[str] = mapped_column(ULID, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    channel_type: Mapped[str] = mapped_column(String(20))
    # Secrets in it are sealed: see `spine.secrets.sealed`.
    config: Mapped[dict[str, Any]] = mapped_column(StoredJson(dict))
    # Each recipient gets its own delivery. A channel without recipients has one null.
    recipients: Mapped[list[str | None]] = mapped_column(StoredJson(list, str, NoneType))
    min_severity: Mapped[str] = mapped_column(String(10))
    # Null: alerts of every domain, and those without a domain.
    domains: Mapped[list[str] | None] = mapped_column(StoredJson(list, str, nullable=True))
    enabled: Mapped[bool]
    throttle_minutes: Mapped[int]
    last_success_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_failure_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # Failed attempts since the last successful one.
    consecutive_failures: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    created_by: Mapped[str | None] = mapped_column(String(255))


class Alert(Base):
    """An alert. Its id begins with the time when it was stored, so ids are ordered by time."""

    __tablename__ = "alerts"
    record = "alert"
    __table_args__ = (
        Index("ix_alerts_severity", "severity", "id"),
        Index("ix_alerts_source", "source", "id"),
        Index("ix_alerts_domain", "domain", "id"),
        # Covers all columns that the statistics of a period read.
        Index("ix_alerts_created_at", "created_at", "severity", "source", "domain"),
        Index(
            "ix_alerts_unresolved",
            "deployment_id",
            postgresql_where=text("deployment_id IS NOT NULL AND resolved_at IS NULL"),
            sqlite_where=text("deployment_id IS NOT NULL AND resolved_at IS NULL"),
        ),
        Index(
            "ix_alerts_unresolved_key",
            "dedup_key",
            postgresql_where=text("dedup_key IS NOT NULL AND resolved_at IS NULL"),
            sqlite_where=text("dedup_key IS NOT NULL AND resolved_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(ULID, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    severity: Mapped[str] = mapped_column(String(10))
    title: Mapped[str] = mapped_column(String(500))
    message: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(String(255))
    domain: Mapped[str | None] = mapped_column(String(255))
    # SQLAlchemy reserves the name `metadata`.
    details: Mapped[dict[str, Any] | None] = mapped_column("metadata", FreeFormJson)
    run_id: Mapped[str | None] = mapped_column(String(255))
    execution_id: Mapped[str | None] = mapped_column(String(255))
    error_category: Mapped[str | None] = mapped_column(String(20))
    capture_id: Mapped[str | None] = mapped_column(String(255))
    dedup_key: Mapped[str | None] = mapped_column(String(255))
    # Identifies the event that raised it. One cause raises one alert, in however many processes it is seen.
    cause: Mapped[str | None] = mapped_column(String(255), unique=True)
    # The deployment whose run failed. A later success of this deployment sets `resolved_at`.
    deployment_id: Mapped[UUID | None] = mapped_column(Uuid)
    failed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    resolved_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # The name of the caller that acknowledged it, and until when; null: until it is resolved.
    acknowledged_by: Mapped[str | None] = mapped_column(String(255))
    snoozed_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    assignee: Mapped[str | None] = mapped_column(String(255))
    # What a person wrote when they acknowledged or resolved it.
    note: Mapped[str | None] = mapped_column(Text)


class AlertDelivery(Base):
    """The delivery of one alert to one receiver, and its state."""

    __tablename__ = "alert_deliveries"
    record = "delivery"
    __table_args__ = (
        Index("ix_alert_deliveries_alert_id", "alert_id"),
        # The queue: the due deliveries of each channel, oldest first.
        Index(
            "ix_alert_deliveries_due",
            "channel_id",
            "due_at",
            postgresql_where=text("status = 'PENDING'"),
            sqlite_where=text("status = 'PENDING'"),
        ),
        Index(
            "ix_alert_deliveries_failed",
            "created_at",
            postgresql_where=text("status = 'FAILED'"),
            sqlite_where=text("status = 'FAILED'"),
        ),
        # Covers all columns that the statistics of a period read.
        Index("ix_alert_deliveries_created_at", "created_at", "status", "delivery_ms"),
    )

    id: Mapped[str] = mapped_column(ULID, primary_key=True, default=new_id)
    alert_id: Mapped[str] = mapped_column(ForeignKey("alerts.id", ondelete="CASCADE"))
    # Not a foreign key: deliveries outlive their channel, and keep its name.
    channel_id: Mapped[str] = mapped_column(ULID)
    channel_name: Mapped[str] = mapped_column(String(255))
    recipient: Mapped[str | None] = mapped_column(String(320))
    status: Mapped[str] = mapped_column(String(10))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    # Attempts that have begun.
    attempt: Mapped[int] = mapped_column(default=0)
    attempted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    delivery_ms: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(String(500))
    next_retry_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # When it may be leased: at its next attempt, or when its current lease expires.
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease: Mapped[str | None] = mapped_column(ULID)
    # How many alerts with the same key were throttled before it.
    held_back: Mapped[int] = mapped_column(default=0)
    # `ACKNOWLEDGE`; null: the alert itself.
    event: Mapped[str | None] = mapped_column(String(12))
    # The delivery that must have ended before this one is sent: an incident is not resolved before it is opened.
    after_id: Mapped[str | None] = mapped_column(ULID)


class AlertThrottle(Base):
    """Until when a channel throttles alerts with one key, and how many it has throttled since the last one sent."""

    __tablename__ = "alert_throttles"
    record = "alert throttle"

    channel_id: Mapped[str] = mapped_column(ULID, primary_key=True)
    # SHA-256 of the alert's deduplication key, in hex.
    key_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    quiet_until: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    # Of the last alert that was sent: a higher one is not throttled. Null in rows of earlier versions.
    severity: Mapped[str | None] = mapped_column(String(10))
    held_back: Mapped[int] = mapped_column(default=0)


class AlertAcknowledgement(Base):
    """A problem that someone has acknowledged: further alerts about it are stored and not sent.

    It lasts while its newest alert is acknowledged: until that is resolved or pruned, or its `snoozed_until` has come.
    """

    __tablename__ = "alert_acknowledgements"
    record = "acknowledgement"

    # SHA-256 of what identifies the problem, in hex.
    problem: Mapped[str] = mapped_column(String(64), primary_key=True)
    alert_id: Mapped[str] = mapped_column(ForeignKey("alerts.id", ondelete="CASCADE"), index=True)
    # The highest of the alerts that were acknowledged: a higher one ends the acknowledgement.
    severity: Mapped[str] = mapped_column(String(10))
