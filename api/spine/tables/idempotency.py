"""The table of requests that came with an `Idempotency-Key`."""

from datetime import datetime

from sqlalchemy import LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from spine.tables.base import Base, UtcDateTime, new_id, utc_now


class IdempotentRequest(Base):
    """One key of one caller on one route; `answer` is null until the work is done.

    `id` names the operation itself: whoever carries it out, first try or repeat, uses the same one towards Prefect.
    """

    __tablename__ = "idempotent_requests"

    id: Mapped[str] = mapped_column(String(26), primary_key=True, default=new_id)
    # SHA-256 over owner, route and key, because together they are longer than an index entry may be.
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    owner: Mapped[str] = mapped_column(Text)
    route: Mapped[str] = mapped_column(Text)
    body_hash: Mapped[str] = mapped_column(String(64))
    answer: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now, index=True)
