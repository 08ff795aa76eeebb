"""The table of API keys."""

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from spine.tables.base import Base, StoredJson, UtcDateTime, new_id, utc_now

LONGEST_NAME = 100


class ApiKey(Base):
    """One API key; the key itself is never stored, only its SHA-256."""

    __tablename__ = "api_keys"
    record = "api key"

    id: Mapped[str] = mapped_column(String(26), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(LONGEST_NAME))
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(StoredJson(list, str))
    # Null: not limited to domains.
    domains: Mapped[list[str] | None] = mapped_column(StoredJson(list, str, nullable=True))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # Null: it does not expire.
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # Written once in a while, not for each request: see `spine.auth.key_uses`.
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


# A name is unique among active keys; a revoked key does not block its name.
Index(
    "uq_api_keys_active_name",
    ApiKey.name,
    unique=True,
    sqlite_where=ApiKey.revoked_at.is_(None),
    postgresql_where=ApiKey.revoked_at.is_(None),
)
