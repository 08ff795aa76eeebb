"""Delete old fetches, with the record of which runs used them."""

from datetime import datetime

from sqlalchemy import ColumnElement, exists
from sqlalchemy.orm import aliased

from spine.audit.pruning import prune_rows
from spine.database import SessionFactory
from spine.tables.cache import CacheEntry
from spine.tables.sources import GOOD, OPEN, Fetch


async def prune_fetches(sessions: SessionFactory, before: datetime, *, dry_run: bool) -> int:
    """Delete the fetches that were made before a moment, except open ones and those that the content came with.

    The last good fetch of each source stays, too. With `dry_run` they are only counted. Raises `DatabaseUnavailable`.
    """
    limits = {"created_before": before.isoformat()}
    return await prune_rows(sessions, Fetch.id, _old(before), "fetches", limits, dry_run=dry_run)


def _old(before: datetime) -> tuple[ColumnElement[bool], ...]:
    later = aliased(Fetch)
    has_later = exists().where(
        later.source_id == Fetch.source_id, later.status.in_(GOOD), later.completed_at > Fetch.completed_at
    )
    is_content = exists().where(CacheEntry.fetch_id == Fetch.id)
    is_last = Fetch.status.in_(GOOD) & ~has_later
    return Fetch.created_at < before, Fetch.status.not_in(OPEN), ~is_content, ~is_last
