"""Retry a run: the same Prefect run continues, as with the Retry button of Prefect's UI.

Prefect reuses the persisted results of completed steps and runs the others. To run a completed step again, its result
is marked as expired, which is how Prefect itself discards results.

Prefect would accept two retries at the same time. So a retry first claims, in Spine's own table, the final state that
it starts from; a second retry finds the claim and is refused. If the process that made a claim dies before the retry
reaches Prefect, the claim expires.
"""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from spine.audit.trail import changing
from spine.auth.callers import Caller
from spine.database import SessionFactory, transaction
from spine.errors import BadRequest, Conflict
from spine.json_rule import problems_of
from spine.prefect.around import named
from spine.prefect.client import FlowRun, Prefect, SetStateStatus
from spine.prefect.results import ResultReference, ResultUnreadable, check_reusable, expire_result
from spine.prefect.states import AwaitingRetry, Failed, rejection_of
from spine.tables.base import utc_now
from spine.tables.retries import RetryClaim
from spine.workflows.children import refuse_ambiguous_children
from spine.workflows.run_detail import find_run, read_steps
from spine.workflows.run_list import status_of
from spine.workflows.schemas import RunStatus, StepStatus, TriggerStatus, WorkflowTriggerResponse
from spine.workflows.steps import Step, is_child_run

RETRYABLE = {RunStatus.FAILED, RunStatus.CANCELLED}

# Longer than the slowest retry, so that a claim expires only after the process that made it has died.
CLAIM_LEASE = timedelta(seconds=30)


async def retry_run(
    prefect: Prefect, sessions: SessionFactory, caller: Caller, run_id: str, from_step: str | None
) -> WorkflowTriggerResponse:
    """Continue a failed or cancelled run from its first failed step or from `from_step`.

    Raises `NotFound`; `BadRequest` for an unknown step; `Conflict` if the run has not failed, has no deployment, is
    being retried already, if results that the retry needs cannot be read, or if child flows could be mixed up.
    """
    run = await find_run(prefect, caller.domains, run_id)
    if status_of(run) not in RETRYABLE or run.state_id is None:
        raise Conflict(f"Run {run_id} is {run.state_name}; only a failed or cancelled run can be retried.")
    if run.deployment_id is None:
        raise Conflict(f"Run {run_id} was not started from a deployment, so no worker can run it again.")
    if problems := problems_of(run.parameters):
        raise Conflict(f"Run {run_id} cannot be retried, because of its parameters: {named(problems)}.")
    await refuse_ambiguous_children(prefect, run)
    # Read before anything is changed: after Prefect has accepted the retry, no further request may fail.
    workflow = (await prefect.flow_names([run.flow_id]))[run.flow_id]
    before = {"status": run.state_name}
    async with changing("retried", "run", run.id, run.name, before=before) as change:
        await _continue(prefect, sessions, caller, run, from_step)
        change.after = {"status": "AwaitingRetry", "from_step": from_step}
    start = f"from step {from_step!r}" if from_step else "from the first step that did not complete"
    return WorkflowTriggerResponse(
        run_id=run.id,
        workflow_name=workflow,
        status=TriggerStatus.PENDING,
        message=f"Run {run.name!r} will continue {start} and is waiting for a worker.",
    )


async def _continue(
    prefect: Prefect, sessions: SessionFactory, caller: Caller, run: FlowRun, from_step: str | None
) -> None:
    await claim_retry(sessions, run, caller.name, from_step)
    try:
        if from_step is not None:
            for step in await _plan(prefect, run, from_step):
                await _discard_result(prefect, step)
        await _resume(prefect, run, caller)
    except Exception:
        await release_retry(sessions, run)
        raise


async def _plan(prefect: Prefect, run: FlowRun, from_step: str) -> Sequence[Step]:
    """The completed steps to run again, after checking that no step before them would run again."""
    steps = await read_steps(prefect, run)
    names = list(dict.fromkeys(step.name for step in steps))
    if from_step not in names:
        raise BadRequest(f"The run has no step {from_step!r}; its steps are: {', '.join(names) or 'none yet'}.")
    first = next(index for index, step in enumerate(steps) if step.name == from_step)
    for step in steps[:first]:
        await _check_reused(prefect, step, from_step)
    # A step that reused the result of an earlier step will reuse it again: discarding that result would run both.
    kept = {key for step in steps[:first] if (key := _storage_key(step))}
    completed = [step for step in steps[first:] if step.status is StepStatus.COMPLETED]
    again = [step for step in completed if _storage_key(step) not in kept]
    for step in again:
        await _check_discardable(prefect, step)
    return again


async def _check_reused(prefect: Prefect, step: Step, from_step: str) -> None:
    if step.status is not StepStatus.COMPLETED:
        raise Conflict(
            f"Step {step.name!r} is before {from_step!r} and did not complete, so it would run too; "
            f"retry from {step.name!r} or without from_step."
        )
    child = step.newest_child
    if child is not None and child.deployment_id is not None and child.idempotency_key is None:
        raise Conflict(
            f"Step {step.name!r} is before {from_step!r} but would run again, because run_deployment starts a new "
            "run each time unless the flow passes it an idempotency_key."
        )
    try:
        await check_reusable(prefect, step.result, is_flow=is_child_run(step.latest))
    except ResultUnreadable as reason:
        raise Conflict(f"Step {step.name!r} is before {from_step!r} but would run again, because {reason}.") from None


async def _check_discardable(prefect: Prefect, step: Step) -> None:
    if is_child_run(step.latest):
        return
    try:
        # A result that an earlier retry marked as expired must be readable and writable too.
        await check_reusable(prefect, step.result, expired_too=True)
    except ResultUnreadable as reason:
        raise Conflict(f"Step {step.name!r} cannot be made to run again, because {reason}.") from None


def _storage_key(step: Step) -> str | None:
    try:
        return ResultReference.of(step.result).storage_key
    except ResultUnreadable:
        return None


async def _discard_result(prefect: Prefect, step: Step) -> None:
    if is_child_run(step.latest):
        # Prefect runs a child flow again if the task run that represents it did not complete.
        await prefect.force_task_run_state(step.latest.id, Failed(message="To be run again: retried from this step."))
        return
    try:
        await expire_result(prefect, step.result)
    except ResultUnreadable as reason:
        raise Conflict(f"Step {step.name!r} cannot be made to run again, because {reason}.") from None


async def _resume(prefect: Prefect, run: FlowRun, caller: Caller) -> None:
    # Not forced: Prefect's rules enforce concurrency limits and reject runs that cannot be rescheduled.
    result = await prefect.set_run_state(run.id, AwaitingRetry(message=f"Retried over the API by {caller.name}."))
    if result.status is not SetStateStatus.ACCEPT:
        raise Conflict(f"Prefect rejected the retry of run {run.id}: {rejection_of(result)}")


async def claim_retry(sessions: SessionFactory, run: FlowRun, by: str, from_step: str | None = None) -> None:
    """Claim the final state that a run has, from which it can be retried once. Raises `Conflict`."""
    expired = (RetryClaim.state_id == run.state_id) & (RetryClaim.claimed_at < utc_now() - CLAIM_LEASE)
    try:
        async with transaction(sessions) as session:
            await session.execute(delete(RetryClaim).where(expired))
            session.add(RetryClaim(state_id=run.state_id, run_id=run.id, from_step=from_step, claimed_by=by))
    except IntegrityError:
        raise Conflict(f"Run {run.id} is being retried already.") from None


async def release_retry(sessions: SessionFactory, run: FlowRun) -> None:
    """Release a claim whose retry has not reached Prefect."""
    async with transaction(sessions) as session:
        await session.execute(delete(RetryClaim).where(RetryClaim.state_id == run.state_id))
