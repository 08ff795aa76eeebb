"""Delete rows that are older than a retention time, and keep an entry of that in the audit trail."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import InstrumentedAttribute

from spine.audit.trail import record
from spine.database import SessionFactory, reading, transaction
from spine.tables.audit import AuditEntry

# Small enough that no other transaction waits for long.
ROWS_AT_ONCE = 1_000


async def prune_rows(
    sessions: SessionFactory,
    key: InstrumentedAttribute[Any],
    old: Sequence[ColumnElement[bool]],
    resource: str,
    limits: dict[str, Any],
    *,
    dry_run: bool,
) -> int:
    """Delete the rows that are `old`, known by their primary key, and return how many; a dry run only counts them.

    The trail keeps an entry of each transaction, with the `limits` that made rows old. Raises `DatabaseUnavailable`.
    """
    if dry_run:
        async with reading(sessions) as session:
            return await session.scalar(select(func.count()).select_from(key.class_).where(*old)) or 0
    count = 0
    while True:
        async with transaction(sessions) as session:
            ids = (await session.scalars(select(key).where(*old).order_by(key).limit(ROWS_AT_ONCE))).all()
            await session.execute(delete(key.class_).where(key.in_(ids)))
            if ids:
                await record(session, "pruned", resource, resource, after={**limits, "deleted": len(ids)})
        count += len(ids)
        if len(ids) < ROWS_AT_ONCE:
            return count


async def prune_audit(sessions: SessionFactory, before: datetime, *, dry_run: bool) -> int:
    """Delete the entries from before a moment, and return how many; with `dry_run` they are only counted.

    The trail keeps an entry of each deletion. Raises `DatabaseUnavailable`.
    """
    limits = {"created_before": before.isoformat()}
    return await prune_rows(sessions, AuditEntry.id, [AuditEntry.at < before], "audit", limits, dry_run=dry_run)
