"""What the follower of finished runs remembers."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from spine.tables.base import Base, UtcDateTime


class RunEnding(Base):
    """How a run of a deployment last ended; one row for each run, rewritten when it is retried and ends anew.

    It lets an ending be counted once however often it is met, and taken back when the run ends otherwise later.
    """

    __tablename__ = "run_endings"
    __table_args__ = (
        Index("ix_run_endings_deployment_id", "deployment_id", "outcome", "scheduled_at"),
        Index("ix_run_endings_started_at", "deployment_id", "started_at"),
    )

    run_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    deployment_id: Mapped[UUID] = mapped_column(Uuid)
    state_id: Mapped[UUID] = mapped_column(Uuid)
    outcome: Mapped[str] = mapped_column(String(10))
    scheduled_at: Mapped[datetime] = mapped_column(UtcDateTime)
    # Null for a run that was cancelled before it began.
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # When the final state was set: later than Prefect's end time where one final state was forced into another.
    ended_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RunAlertClaim(Base):
    """A run that failed, written with the record of its end: an alert is to be raised for it."""

    __tablename__ = "run_alert_claims"

    # The final state: a run that is retried and fails again has another one.
    state_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    run_id: Mapped[UUID] = mapped_column(Uuid)
    deployment_id: Mapped[UUID] = mapped_column(Uuid)
    ended_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class DeploymentStatistics(Base):
    """Counts over the endings of a deployment's runs, kept in the transaction that writes the endings."""

    __tablename__ = "deployment_statistics"

    deployment_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    run_count: Mapped[int] = mapped_column(default=0)
    success_count: Mapped[int] = mapped_column(default=0)
    failure_count: Mapped[int] = mapped_column(default=0)
    consecutive_failures: Mapped[int] = mapped_column(default=0)
    last_run_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class FollowerCursor(Base):
    """How far a follower has read, and which process leads it for now."""

    __tablename__ = "follower_cursors"

    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    # Every run that ended up to here (in Prefect's clock) is in `run_endings`; null before the first whole reading.
    read_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # Runs that failed before are history; those that fail later raise alerts.
    alerts_since: Mapped[datetime] = mapped_column(UtcDateTime)
    leader: Mapped[str | None] = mapped_column(String(100))
    leads_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
