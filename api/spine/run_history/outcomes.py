"""Record the outcomes of runs, each once, and keep the counts per deployment consistent with them.

Everything happens in one transaction that first locks the follower's cursor, so all that record wait for each other.
Two followers at once, or a follower and a request that reads ahead of it, therefore count each outcome exactly once.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import delete, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.database import SessionFactory, reading, transaction
from spine.oddities import make_each
from spine.prefect.client import FlowRun
from spine.prefect.states import is_final
from spine.run_history.domains import record_domains
from spine.tables.base import UtcDateTime
from spine.tables.run_history import DeploymentStatistics, FollowerCursor, RunAlertClaim, RunOutcome

CURSOR = "runs"
COMPLETED, FAILED, CANCELLED = "COMPLETED", "FAILED", "CANCELLED"
_OUTCOMES = {"COMPLETED": COMPLETED, "FAILED": FAILED, "CRASHED": FAILED, "CANCELLED": CANCELLED}
_BEFORE_EVERYTHING = literal(datetime(1, 1, 1, tzinfo=UTC), UtcDateTime())


async def record_outcomes(sessions: SessionFactory, runs: Sequence[FlowRun]) -> list[RunOutcome]:
    """Record the outcomes of those `runs` that have ended and belong to a deployment; return the new ones.

    A run that ended before and was retried, or was forced into another state, counts only by its latest outcome. Raises
    `DatabaseUnavailable`.
    """
    await record_domains(sessions, runs)
    made = make_each("flow run", runs, outcome_of, lambda run: run.id)
    outcomes = [outcome for outcome in made if outcome is not None]
    # Most of these are recorded already, which a read finds out without waiting for a lock.
    outcomes = await _without_recorded(sessions, outcomes)
    if not outcomes:
        return []
    async with transaction(sessions) as session:
        # The first statement is a write, so that SQLite, too, blocks other writers until the transaction ends.
        await session.execute(
            update(FollowerCursor).where(FollowerCursor.name == CURSOR).values(name=FollowerCursor.name)
        )
        return await _record(session, outcomes)


def outcome_of(run: FlowRun) -> RunOutcome | None:
    """The outcome of a run; None for a run that has not ended or has no deployment."""
    if not is_final(run) or run.state is None or run.deployment_id is None:
        return None
    outcome = _OUTCOMES[run.state.type.value]
    # Prefect gives a run that is cancelled before it starts a start time, equal to its end time.
    has_started = outcome != CANCELLED or run.run_count > 0
    ended_at = run.state.timestamp
    return RunOutcome(
        run_id=run.id,
        deployment_id=run.deployment_id,
        state_id=run.state.id,
        outcome=outcome,
        scheduled_at=run.expected_start_time or run.start_time or ended_at,
        started_at=(run.start_time or ended_at) if has_started else None,
        ended_at=ended_at,
    )


async def _without_recorded(sessions: SessionFactory, outcomes: Sequence[RunOutcome]) -> list[RunOutcome]:
    if not outcomes:
        return []
    async with reading(sessions) as session:
        of_these = RunOutcome.run_id.in_([outcome.run_id for outcome in outcomes])
        recorded = set(await session.scalars(select(RunOutcome.state_id).where(of_these)))
    return [outcome for outcome in outcomes if outcome.state_id not in recorded]


async def _record(session: AsyncSession, outcomes: Sequence[RunOutcome]) -> list[RunOutcome]:
    ids = [outcome.run_id for outcome in outcomes]
    known = {one.run_id: one for one in await session.scalars(select(RunOutcome).where(RunOutcome.run_id.in_(ids)))}
    new: dict[UUID, RunOutcome] = {}
    deltas: dict[UUID, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for outcome in outcomes:
        before = new.get(outcome.run_id) or known.get(outcome.run_id)
        # A page that was read before the run ended again is older than what is recorded.
        if before is not None and (before.state_id == outcome.state_id or before.ended_at > outcome.ended_at):
            continue
        if before is not None:
            _count(deltas[before.deployment_id], before, -1)
        _count(deltas[outcome.deployment_id], outcome, 1)
        new[outcome.run_id] = outcome
    if new:
        await session.execute(delete(RunOutcome).where(RunOutcome.run_id.in_(list(new))))
        session.expunge_all()
        session.add_all(new.values())
        await _add_alert_claims(session, new.values())
        await _add_to_counts(session, deltas)
    return list(new.values())


async def _add_alert_claims(session: AsyncSession, outcomes: Iterable[RunOutcome]) -> None:
    """Request an alert for each failure in the transaction that records it, so that neither exists alone."""
    since = await session.scalar(select(FollowerCursor.alerts_since).where(FollowerCursor.name == CURSOR))
    for outcome in outcomes:
        if outcome.outcome == FAILED and since is not None and outcome.ended_at >= since:
            claim = {name: getattr(outcome, name) for name in ("state_id", "run_id", "deployment_id", "ended_at")}
            session.add(RunAlertClaim(**claim))


def _count(delta: dict[str, int], outcome: RunOutcome, by: int) -> None:
    delta["run_count"] += by if outcome.started_at is not None else 0
    delta["success_count"] += by if outcome.outcome == COMPLETED else 0
    delta["failure_count"] += by if outcome.outcome == FAILED else 0


async def _add_to_counts(session: AsyncSession, deltas: dict[UUID, dict[str, int]]) -> None:
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
    await _update_derived(session, deltas)


async def _update_derived(session: AsyncSession, deployment_ids: Iterable[UUID]) -> None:
    """Set the values that cannot be counted incrementally: consecutive failures and the newest start time.

    Consecutive failures are those since the last success, by due time; cancelled runs count as neither. Each value
    takes one short index lookup, however long the history is.
    """
    mine = RunOutcome.deployment_id == DeploymentStatistics.deployment_id
    last_success = (
        select(func.max(RunOutcome.scheduled_at))
        .where(mine, RunOutcome.outcome == COMPLETED)
        .correlate(DeploymentStatistics)
        .scalar_subquery()
    )
    since_then = RunOutcome.scheduled_at > func.coalesce(last_success, _BEFORE_EVERYTHING)
    consecutive = select(func.count()).where(mine, RunOutcome.outcome == FAILED, since_then)
    newest_start = select(func.max(RunOutcome.started_at)).where(mine)
    await session.execute(
        update(DeploymentStatistics)
        .where(DeploymentStatistics.deployment_id.in_(list(deployment_ids)))
        .values(
            consecutive_failures=consecutive.correlate(DeploymentStatistics).scalar_subquery(),
            last_run_at=newest_start.correlate(DeploymentStatistics).scalar_subquery(),
        )
        .execution_options(synchronize_session=False)
    )
