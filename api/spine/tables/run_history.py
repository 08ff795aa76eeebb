"""What the follower of finished runs stores."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from spine.tables.base import Base, UtcDateTime


class RunOutcome(Base):
    """The latest outcome of one run of a deployment; replaced when the run is retried and ends again.

    It ensures that each outcome is counted once however often it is read, and can be subtracted when the run later ends
    differently.
    """

    __tablename__ = "run_endings"
    record = "run outcome"
    __table_args__ = (
        Index("ix_run_endings_deployment_id", "deployment_id", "outcome", "scheduled_at"),
        Index("ix_run_endings_started_at", "deployment_id", "started_at"),
    )

    run_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    deployment_id: Mapped[UUID] = mapped_column(Uuid)
    state_id: Mapped[UUID] = mapped_column(Uuid)
    outcome: Mapped[str] = mapped_column(String(10))
    scheduled_at: Mapped[datetime] = mapped_column(UtcDateTime)
    # Null for a run that was cancelled before it started.
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # When the final state was set: later than Prefect's end time if one final state was forced into another.
    ended_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RunAlertClaim(Base):
    """A failed run for which an alert must be raised; written in the transaction that records its outcome."""

    __tablename__ = "run_alert_claims"
    record = "run alert claim"

    # The id of the final state: a run that is retried and fails again has another one.
    state_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    run_id: Mapped[UUID] = mapped_column(Uuid)
    deployment_id: Mapped[UUID] = mapped_column(Uuid)
    ended_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class DeploymentStatistics(Base):
    """Counts over the outcomes of a deployment's runs, updated in the transaction that records the outcomes."""

    __tablename__ = "deployment_statistics"
    record = "deployment statistics"

    deployment_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    run_count: Mapped[int] = mapped_column(default=0)
    success_count: Mapped[int] = mapped_column(default=0)
    failure_count: Mapped[int] = mapped_column(default=0)
    consecutive_failures: Mapped[int] = mapped_column(default=0)
    last_run_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class FollowerCursor(Base):
    """How far the follower has read, and the lease of the process that follows."""

    __tablename__ = "follower_cursors"
    record = "follower cursor"

    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    # Every run that ended up to here (by Prefect's clock) is in `run_endings`; null before the first full read.
    read_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # Only runs that fail after this raise alerts; earlier failures are history.
    alerts_since: Mapped[datetime] = mapped_column(UtcDateTime)
    lease_owner: Mapped[str | None] = mapped_column("leader", String(100))
    lease_expires_at: Mapped[datetime | None] = mapped_column("leads_until", UtcDateTime)
