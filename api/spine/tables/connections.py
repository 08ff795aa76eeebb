"""The table of database connections."""

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from spine.tables.base import Base, UtcDateTime, new_id, utc_now

UNKNOWN = "UNKNOWN"


class DatabaseConnection(Base):
    """How to reach a database, with references to its secrets, and the result of its last test."""

    __tablename__ = "database_connections"
    record = "connection"

    id: Mapped[str] = mapped_column(String(26), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    db_type: Mapped[str] = mapped_column(String(20))
    host: Mapped[str | None] = mapped_column(String(255))
    port: Mapped[int | None]
    database: Mapped[str] = mapped_column(String(1_000))
    username: Mapped[str | None] = mapped_column(String(255))
    password_ref: Mapped[str | None] = mapped_column(String(255))
    pool_size: Mapped[int]
    pool_overflow: Mapped[int]
    ssl_mode: Mapped[str] = mapped_column(String(20))
    ssl_cert_ref: Mapped[str | None] = mapped_column(String(255))
    enabled: Mapped[bool]
    last_health_check_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    health_status: Mapped[str] = mapped_column(String(20), default=UNKNOWN)
    health_message: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    created_by: Mapped[str | None] = mapped_column(String(255))
