"""The few rows that schedules need beside Prefect's: who is making a name, and what operators switched off."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from spine.tables.base import Base, UtcDateTime, utc_now


class ScheduleNameClaim(Base):
    """The right to make a schedule of one name, held only while Prefect is asked to make it."""

    __tablename__ = "schedule_name_claims"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    claimed_by: Mapped[str] = mapped_column(String(255))
    claimed_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class ScheduleHold(Base):
    """That a deployment was seen switched off, wholly or in part, with its schedules as they were then.

    `prefect deploy` switches it on again; comparing with this tells that from an operator who did.
    """

    __tablename__ = "schedule_holds"

    deployment_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    paused: Mapped[bool]
    # For each schedule of the deployment what `ScheduleRow` has of it.
    schedules: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    deployment_updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
