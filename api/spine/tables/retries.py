"""The table of claims on retries."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from spine.tables.base import Base, UtcDateTime, utc_now


class RetryClaim(Base):
    """The right to retry a run from one final state, which only one caller gets.

    The key is the id of the final state that the retry leaves: the next failure is another state, with another claim.
    """

    __tablename__ = "retry_claims"
    record = "retry claim"

    state_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    run_id: Mapped[UUID] = mapped_column(Uuid, index=True)
    from_step: Mapped[str | None] = mapped_column(String(500))
    claimed_by: Mapped[str] = mapped_column(String(255))
    claimed_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
