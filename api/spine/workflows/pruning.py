"""Delete claims of retries and answers to repeated requests that nobody needs any more."""

from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, select

from spine.database import SessionFactory, reading, transaction
from spine.idempotency.service import KEPT_FOR
from spine.tables import Base
from spine.tables.base import utc_now
from spine.tables.idempotency import IdempotentRequest
from spine.tables.retries import RetryClaim


async def prune_requests(sessions: SessionFactory, before: datetime, *, dry_run: bool) -> int:
    """Delete the claims of retries from before a moment, and all answers that are kept for longer than they have to be.

    With `dry_run` they are only counted. Raises `DatabaseUnavailable`.
    """
    old: list[tuple[type[Base], ColumnElement[bool]]] = [
        (RetryClaim, RetryClaim.claimed_at < before),
        (IdempotentRequest, IdempotentRequest.created_at < utc_now() - KEPT_FOR),
    ]
    if dry_run:
        async with reading(sessions) as session:
            counts = [select(func.count()).select_from(table).where(is_old) for table, is_old in old]
            return sum([await session.scalar(count) or 0 for count in counts])
    async with transaction(sessions) as session:
        deleted = [await session.execute(delete(table).where(is_old)) for table, is_old in old]
    return sum(done.rowcount for done in deleted)  # type: ignore[attr-defined]
