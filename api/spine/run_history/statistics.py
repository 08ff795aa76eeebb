"""Statistics per deployment, exact at the time they are read."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select

from spine.database import SessionFactory, reading
from spine.prefect.client import MOST_ROWS, FlowRun, Prefect
from spine.prefect.filters import Json, RunFilter
from spine.run_history.ingest import ENDED, NEWEST_END_FIRST, read_cursor
from spine.run_history.outcomes import record_outcomes
from spine.tables.run_history import DeploymentStatistics, RunOutcome

# Prefect sets a run's end time some moments before the run can be read. The follower reads further back.
OVERLAP = timedelta(seconds=10)

# Includes runs that wait for another attempt, or for a worker after a pause; `run_count` shows that they have started.
_IN_PROGRESS: Json = {
    "operator": "or_",
    "type": {"any_": ["RUNNING", "CANCELLING", "PAUSED", "PENDING"]},
    "name": {"any_": ["AwaitingRetry", "Resuming"]},
}


@dataclass(frozen=True)
class Statistics:
    """Counts over a deployment's runs. A run that is being retried still counts by its previous outcome."""

    run_count: int = 0
    success_count: int = 0
    failure_count: int = 0
    consecutive_failures: int = 0
    last_run_at: datetime | None = None


async def read_statistics(
    prefect: Prefect, sessions: SessionFactory, deployment_ids: Sequence[UUID]
) -> dict[UUID, Statistics]:
    """The statistics of each deployment, zeros if it has no runs; at most 100 deployments.

    The follower may be moments behind, so outcomes since its cursor are recorded here first. That takes one call of
    Prefect, and the runs in progress take another. Raises `PrefectUnavailable` and `DatabaseUnavailable`.
    """
    if not deployment_ids:
        return {}
    in_progress = await _record_and_list_in_progress(prefect, sessions, deployment_ids)
    # A run that ended once and is being retried has been counted already. One statement reads both, so that a run that
    # ends just now is in both or in neither.
    already_counted = (
        select(RunOutcome.deployment_id, func.count().label("runs"))
        .where(RunOutcome.run_id.in_([run.id for run in in_progress]), RunOutcome.started_at.is_not(None))
        .group_by(RunOutcome.deployment_id)
        .subquery()
    )
    wanted = (
        select(DeploymentStatistics, func.coalesce(already_counted.c.runs, 0))
        .outerjoin(already_counted, already_counted.c.deployment_id == DeploymentStatistics.deployment_id)
        .where(DeploymentStatistics.deployment_id.in_(deployment_ids))
    )
    async with reading(sessions) as session:
        rows = (await session.execute(wanted)).all()
    found = {row.deployment_id: (row, already) for row, already in rows}
    runs = _by_deployment(in_progress)
    return {one: _combine(*found.get(one, (None, 0)), runs.get(one, [])) for one in deployment_ids}


async def _record_and_list_in_progress(
    prefect: Prefect, sessions: SessionFactory, deployment_ids: Sequence[UUID]
) -> list[FlowRun]:
    """Record the outcomes since the cursor and return the runs in progress, read first so that no run is missed.

    Prefect's database answers both at once ten times slower than one after the other.
    """
    in_progress = await prefect.all_runs(RunFilter(runs={"state": _IN_PROGRESS}).of_deployments(deployment_ids))
    await record_outcomes(sessions, await _recently_ended(prefect, sessions, deployment_ids))
    return [run for run in in_progress if run.run_count > 0]


async def _recently_ended(prefect: Prefect, sessions: SessionFactory, deployment_ids: Sequence[UUID]) -> list[FlowRun]:
    """The runs that ended since the cursor: of all deployments if they fit into one page, else only of these.

    If these are more than one page as well, the result is empty: the first read of a long history is still in progress,
    or the follower is far behind and will catch up.
    """
    cursor = await read_cursor(sessions)
    if cursor is not None:
        since = ENDED.between("end_time", since=cursor - OVERLAP)
        found = await prefect.list_runs(since, NEWEST_END_FIRST)
        if found.held < MOST_ROWS:
            return found
    else:
        since = ENDED
    found = await prefect.list_runs(since.of_deployments(deployment_ids), NEWEST_END_FIRST)
    return found if found.held < MOST_ROWS else []


def _by_deployment(runs: Sequence[FlowRun]) -> dict[UUID, list[FlowRun]]:
    grouped: dict[UUID, list[FlowRun]] = defaultdict(list)
    for run in runs:
        if run.deployment_id is not None:
            grouped[run.deployment_id].append(run)
    return grouped


def _combine(row: DeploymentStatistics | None, already_counted: int, in_progress: Sequence[FlowRun]) -> Statistics:
    recorded = Statistics() if row is None else _from_row(row)
    times = [time for time in (recorded.last_run_at, *(run.start_time for run in in_progress)) if time is not None]
    run_count = recorded.run_count + len(in_progress) - already_counted
    return replace(recorded, run_count=run_count, last_run_at=max(times, default=None))


def _from_row(row: DeploymentStatistics) -> Statistics:
    return Statistics(
        run_count=row.run_count,
        success_count=row.success_count,
        failure_count=row.failure_count,
        consecutive_failures=row.consecutive_failures,
        last_run_at=row.last_run_at,
    )
