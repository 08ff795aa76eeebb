"""Record how runs ended, each ending once, and keep the counts per deployment in step.

All of it happens in one transaction that first locks the follower's cursor: whoever else records waits. So two
followers at once, or a follower and a request that reads ahead of it, count each ending exactly once.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import delete, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.database import SessionFactory, database_errors
from spine.prefect.client import FlowRun
from spine.prefect.states import is_final
from spine.tables.base import UtcDateTime
from spine.tables.run_history import DeploymentStatistics, FollowerCursor, RunAlertClaim, RunEnding

CURSOR = "runs"
COMPLETED, FAILED, CANCELLED = "COMPLETED", "FAILED", "CANCELLED"
_OUTCOMES = {"COMPLETED": COMPLETED, "FAILED": FAILED, "CRASHED": FAILED, "CANCELLED": CANCELLED}
_BEFORE_EVERYTHING = literal(datetime(1, 1, 1, tzinfo=UTC), UtcDateTime())


async def record_endings(sessions: SessionFactory, runs: Sequence[FlowRun]) -> list[RunEnding]:
    """Record those of `runs` that have ended and belong to a deployment; give those that were new.

    A run that ended before and was retried, or forced into another state, is counted by its newest ending only. Raises
    `DatabaseUnavailable`.
    """
    ended = [ending for run in runs if (ending := ending_of(run)) is not None]
    with database_errors():
        # Most of what is met has been recorded, and to find that out nobody needs to wait for a lock.
        ended = await _without_recorded(sessions, ended)
        if not ended:
            return []
        async with sessions.begin() as session:
            # The first statement writes: SQLite, too, then lets nobody else write until the end.
            await session.execute(
                update(FollowerCursor).where(FollowerCursor.name == CURSOR).values(name=FollowerCursor.name)
            )
            return await _record(session, ended)


def ending_of(run: FlowRun) -> RunEnding | None:
    """How a run ended; None while it has not, and for one without a deployment."""
    if not is_final(run) or run.state is None or run.deployment_id is None:
        return None
    outcome = _OUTCOMES[run.state.type.value]
    # Prefect gives a run that is cancelled before it began a start, equal to its end.
    began = outcome != CANCELLED or run.run_count > 0
    ended_at = run.state.timestamp
    return RunEnding(
        run_id=run.id,
        deployment_id=run.deployment_id,
        state_id=run.state.id,
        outcome=outcome,
        scheduled_at=run.expected_start_time or run.start_time or ended_at,
        started_at=(run.start_time or ended_at) if began else None,
        ended_at=ended_at,
    )


async def _without_recorded(sessions: SessionFactory, ended: Sequence[RunEnding]) -> list[RunEnding]:
    if not ended:
        return []
    async with sessions() as session:
        of_these = RunEnding.run_id.in_([ending.run_id for ending in ended])
        recorded = set(await session.scalars(select(RunEnding.state_id).where(of_these)))
    return [ending for ending in ended if ending.state_id not in recorded]


async def _record(session: AsyncSession, ended: Sequence[RunEnding]) -> list[RunEnding]:
    ids = [ending.run_id for ending in ended]
    known = {one.run_id: one for one in await session.scalars(select(RunEnding).where(RunEnding.run_id.in_(ids)))}
    new: dict[UUID, RunEnding] = {}
    deltas: dict[UUID, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for ending in ended:
        before = new.get(ending.run_id) or known.get(ending.run_id)
        # A page that was read before the run ended anew says less than what is recorded.
        if before is not None and (before.state_id == ending.state_id or before.ended_at > ending.ended_at):
            continue
        if before is not None:
            _count(deltas[before.deployment_id], before, -1)
        _count(deltas[ending.deployment_id], ending, 1)
        new[ending.run_id] = ending
    if new:
        await session.execute(delete(RunEnding).where(RunEnding.run_id.in_(list(new))))
        session.expunge_all()
        session.add_all(new.values())
        await _claim_alerts(session, new.values())
        await _apply(session, deltas)
    return list(new.values())


async def _claim_alerts(session: AsyncSession, endings: Iterable[RunEnding]) -> None:
    """Ask for an alert for each failure, in the transaction that records it, so that neither is there alone."""
    since = await session.scalar(select(FollowerCursor.alerts_since).where(FollowerCursor.name == CURSOR))
    for ending in endings:
        if ending.outcome == FAILED and since is not None and ending.ended_at >= since:
            claim = {name: getattr(ending, name) for name in ("state_id", "run_id", "deployment_id", "ended_at")}
            session.add(RunAlertClaim(**claim))


def _count(delta: dict[str, int], ending: RunEnding, by: int) -> None:
    delta["run_count"] += by if ending.started_at is not None else 0
    delta["success_count"] += by if ending.outcome == COMPLETED else 0
    delta["failure_count"] += by if ending.outcome == FAILED else 0


async def _apply(session: AsyncSession, deltas: dict[UUID, dict[str, int]]) -> None:
    wanted = select(DeploymentStatistics).where(DeploymentStatistics.deployment_id.in_(list(deltas)))
    rows = {row.deployment_id: row for row in await session.scalars(wanted)}
    for deployment_id, delta in deltas.items():
        row = rows.get(deployment_id)
        if row is None:
            zeros = dict.fromkeys(("run_count", "success_count", "failure_count", "consecutive_failures"), 0)
            row = DeploymentStatistics(deployment_id=deployment_id, **zeros)
            session.add(row)
        row.run_count += delta["run_count"]
        row.success_count += delta["success_count"]
        row.failure_count += delta["failure_count"]
    await session.flush()
    await _derive(session, deltas)


async def _derive(session: AsyncSession, deployment_ids: Iterable[UUID]) -> None:
    """Read from the recorded endings what cannot be counted up: the failures in a row and the newest start.

    Failures are in a row since the last success by the time that runs were due; cancelled runs are neither. Each is
    one short look into an index, however long the history is.
    """
    mine = RunEnding.deployment_id == DeploymentStatistics.deployment_id
    last_success = (
        select(func.max(RunEnding.scheduled_at))
        .where(mine, RunEnding.outcome == COMPLETED)
        .correlate(DeploymentStatistics)
        .scalar_subquery()
    )
    since_then = RunEnding.scheduled_at > func.coalesce(last_success, _BEFORE_EVERYTHING)
    in_a_row = select(func.count()).where(mine, RunEnding.outcome == FAILED, since_then)
    newest_start = select(func.max(RunEnding.started_at)).where(mine)
    await session.execute(
        update(DeploymentStatistics)
        .where(DeploymentStatistics.deployment_id.in_(list(deployment_ids)))
        .values(
            consecutive_failures=in_a_row.correlate(DeploymentStatistics).scalar_subquery(),
            last_run_at=newest_start.correlate(DeploymentStatistics).scalar_subquery(),
        )
        .execution_options(synchronize_session=False)
    )
