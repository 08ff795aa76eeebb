"""The rows that schedules need beside Prefect's: claims on names, which are disabled, and what was copied to them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from spine.tables.base import Base, StoredJson, UtcDateTime, utc_now


class ScheduleNameClaim(Base):
    """The right to create a schedule of one name, kept only while Prefect creates it."""

    __tablename__ = "schedule_name_claims"
    record = "schedule name claim"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    claimed_by: Mapped[str] = mapped_column(String(255))
    claimed_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class DisabledDeployment(Base):
    """A deployment that is disabled, wholly or in part, with its schedules as they were when it was last read.

    `prefect deploy` enables it again; comparing with this row distinguishes that from an operator's change.
    """

    __tablename__ = "schedule_holds"
    record = "disabled deployment"

    deployment_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    paused: Mapped[bool]
    # The fields of `ScheduleRow` for each schedule of the deployment.
    schedules: Mapped[list[dict[str, Any]]] = mapped_column(StoredJson(list, dict))
    deployment_updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class CopiedVariables(Base):
    """The job variables that were last copied from a workflow to one of its schedules."""

    __tablename__ = "copied_variables"
    record = "copied variables"

    deployment_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    job_variables: Mapped[dict[str, Any]] = mapped_column(StoredJson(dict))
