"""The table of requests that came with an `Idempotency-Key`."""

from datetime import datetime

from sqlalchemy import LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from spine.tables.base import Base, UtcDateTime, new_id, utc_now


class IdempotentRequest(Base):
    """One key of one caller on one route; `answer` is null until the work is done.

    `id` identifies the operation: the first attempt and every repeat send the same one to Prefect.
    """

    __tablename__ = "idempotent_requests"
    record = "idempotent request"

    id: Mapped[str] = mapped_column(String(26), primary_key=True, default=new_id)
    # SHA-256 of owner, route and key, which together are too long for an index.
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    owner: Mapped[str] = mapped_column(Text)
    route: Mapped[str] = mapped_column(Text)
    body_hash: Mapped[str] = mapped_column(String(64))
    answer: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now, index=True)
