"""Delete old outcomes of runs. The counts that they were added to stay."""

from datetime import datetime

from sqlalchemy import exists
from sqlalchemy.orm import aliased

from spine.audit.pruning import prune_rows
from spine.database import SessionFactory
from spine.run_history.outcomes import COMPLETED
from spine.tables.run_history import RunOutcome


async def prune_outcomes(sessions: SessionFactory, before: datetime, *, dry_run: bool) -> int:
    """Delete the outcomes that were set before a moment, up to the last success of their deployment.

    That success and all that is after it say how many runs have failed in a row. A run whose outcome is deleted counts
    as a new one if it ends again. With `dry_run` they are only counted. Raises `DatabaseUnavailable`.
    """
    success = aliased(RunOutcome)
    is_followed = exists().where(
        success.deployment_id == RunOutcome.deployment_id,
        success.outcome == COMPLETED,
        success.scheduled_at > RunOutcome.scheduled_at,
    )
    old = (RunOutcome.ended_at < before, is_followed)
    limits = {"ended_before": before.isoformat()}
    return await prune_rows(sessions, RunOutcome.run_id, old, "outcomes", limits, dry_run=dry_run)
