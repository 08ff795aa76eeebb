"""What follows when a run has crashed without a word: its children end with it, and it is retried as its flow says.

Prefect retries a flow within its process only, so `retries=` does nothing for a run whose process is gone, and the
child runs that were inside this process stay RUNNING.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import select

from spine.database import SessionFactory, reading
from spine.errors import Conflict, NotFound
from spine.prefect.client import FlowRun, Prefect, SetStateStatus
from spine.prefect.filters import RunFilter
from spine.prefect.states import AwaitingRetry, Crashed
from spine.tables.run_history import RunAlertClaim, RunOutcome
from spine.workflows.children import refuse_ambiguous_children
from spine.workflows.retry import claim_retry, release_retry
from spine.workflows.signs_of_life import is_inside_another

log = structlog.get_logger("spine.workflows")

NO_SIGN_OF_LIFE = "There is no sign of life of this run."
# How the messages of crashes begin that the flow has not seen: a flow that crashes by itself, as by `sys.exit`, is not
# retried. Those after the first are of the workers and of `spine up`.
_WITHOUT_A_WORD = (
    *(NO_SIGN_OF_LIFE, "Process exited with status code", "The process ended without a report"),
    *("The worker was stopped or killed", "Flow run infrastructure exited with non-zero status code"),
)
_RETRIED_BY = "Spine, after a crash"
# A crash that is older is history: whoever has left it so long wants no retry.
LONGEST_WAIT = timedelta(hours=1)
MOST_KEPT = 10_000


class AfterCrashes:
    """Does both for the crashes of the last hour; make one for each process."""

    def __init__(self) -> None:
        # The states of crashes for which nothing is left to do.
        self._done: OrderedDict[UUID, None] = OrderedDict()

    async def run(self, prefect: Prefect, sessions: SessionFactory, at: datetime) -> None:
        """Look for crashes, `at` this time of the server. Raises `PrefectUnavailable` and `DatabaseUnavailable`."""
        crashed = RunFilter(runs={"state": {"type": {"any_": ["CRASHED"]}}})
        found = await prefect.list_runs(crashed.between("end_time", since=at - LONGEST_WAIT), "END_TIME_DESC")
        new = [run for run in found if run.state is not None and run.state.id not in self._done]
        if not new:
            return
        await _crash_children(prefect, new)
        retried = [run for run in new if _is_to_be_retried(run)]
        waiting = await _without_alert(sessions, retried)
        for run in retried:
            if run.id not in waiting and not await _retry(prefect, sessions, run, at):
                waiting.add(run.id)
        self._remember(run for run in new if run.id not in waiting)

    def _remember(self, runs: Iterable[FlowRun]) -> None:
        self._done |= {run.state.id: None for run in runs if run.state is not None}
        while len(self._done) > MOST_KEPT:
            self._done.popitem(last=False)


def _is_to_be_retried(run: FlowRun) -> bool:
    retries = run.empirical_policy.retries or 0
    message = (run.state.message if run.state else None) or ""
    return run.deployment_id is not None and 1 <= run.run_count <= retries and message.startswith(_WITHOUT_A_WORD)


async def _crash_children(prefect: Prefect, parents: Sequence[FlowRun]) -> None:
    """Crash the runs inside the processes of these runs, and inside those."""
    while parents:
        children = await prefect.child_runs([parent.id for parent in parents])
        parents = [one for one in children if is_inside_another(one) and one.state and not one.state.is_final()]
        for child in parents:
            try:
                await prefect.set_run_state(child.id, Crashed(message=f"{NO_SIGN_OF_LIFE} Its parent has crashed."))
            except NotFound:
                continue


async def _without_alert(sessions: SessionFactory, runs: Sequence[FlowRun]) -> set[UUID]:
    """Those of these crashed runs that are not recorded, or whose alert is not raised yet: a retry would hide them."""
    if not runs:
        return set()
    states = [run.state_id for run in runs]
    async with reading(sessions) as session:
        recorded = set(await session.scalars(select(RunOutcome.state_id).where(RunOutcome.state_id.in_(states))))
        claims = select(RunAlertClaim.state_id).where(RunAlertClaim.state_id.in_(states))
        recorded -= set(await session.scalars(claims))
    return {run.id for run in runs if run.state_id not in recorded}


async def _retry(prefect: Prefect, sessions: SessionFactory, run: FlowRun, at: datetime) -> bool:
    """Retry a run; return whether that is settled. It is not while somebody else has claimed the retry."""
    try:
        await refuse_ambiguous_children(prefect, run)
    except Conflict as refusal:
        log.warning("run_not_retried", run_id=str(run.id), reason=refusal.detail)
        return True
    try:
        await claim_retry(sessions, run, _RETRIED_BY)
    except Conflict:
        return False
    policy = run.empirical_policy
    message = f"Retry {run.run_count} of {policy.retries}, after a crash."
    due = at + timedelta(seconds=policy.retry_delay or 0)
    try:
        result = await prefect.set_run_state(run.id, AwaitingRetry(scheduled_time=due, message=message))
    except NotFound:
        return True
    except Exception:
        await release_retry(sessions, run)
        raise
    if result.status is SetStateStatus.ACCEPT:
        log.info("run_retried", run_id=str(run.id), reason=message)
    return True
