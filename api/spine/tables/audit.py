"""The audit trail."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from spine.tables.base import Base, FreeFormJson, UtcDateTime, new_id

# Of an entry whose change is in progress, or was interrupted: whether it was made is not known.
STARTED = "STARTED"
DONE = "DONE"

LONGEST_ACTOR = 255
LONGEST_RESOURCE = 500


class AuditEntry(Base):
    """One change: who made it, when, and what the resource was before and after it, without its secrets."""

    __tablename__ = "audit_entries"
    record = "audit entry"

    id: Mapped[str] = mapped_column(String(26), primary_key=True, default=new_id)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(String(LONGEST_ACTOR))
    actor_kind: Mapped[str] = mapped_column(String(10))
    action: Mapped[str] = mapped_column(String(30))
    resource_type: Mapped[str] = mapped_column(String(30))
    resource_id: Mapped[str] = mapped_column(String(LONGEST_RESOURCE))
    resource_name: Mapped[str | None] = mapped_column(String(LONGEST_RESOURCE))
    before: Mapped[dict[str, Any] | None] = mapped_column(FreeFormJson)
    after: Mapped[dict[str, Any] | None] = mapped_column(FreeFormJson)
    request_id: Mapped[str | None] = mapped_column(String(128), index=True)
    address: Mapped[str | None] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(10))


# Newest first is how it is read, and oldest first how it is pruned.
Index("ix_audit_entries_at_id", AuditEntry.at, AuditEntry.id)
Index("ix_audit_entries_resource_id_at", AuditEntry.resource_id, AuditEntry.at)
