"""What belongs to this database outside of it: the store of the cache, and the key of the secrets."""

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from spine.tables.base import Base, UtcDateTime, new_id

ONLY = "spine"


class Installation(Base):
    """The only row, by which a process finds that its settings are not those of the others on this database."""

    __tablename__ = "installations"
    record = "installation"

    name: Mapped[str] = mapped_column(String(20), primary_key=True, default=ONLY)
    # What the marker in the store of the cache contains.
    store_marker: Mapped[str] = mapped_column(String(26), default=new_id)
    # When a store got the marker; null while none has.
    store_claimed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # Whether that was the folder in SPINE_HOME, because no SPINE_CACHE_URL was set.
    store_is_in_home: Mapped[bool] = mapped_column(default=False)
    # A known text, encrypted with the key of the secrets; null while no key is known.
    key_check: Mapped[str | None] = mapped_column(Text)
