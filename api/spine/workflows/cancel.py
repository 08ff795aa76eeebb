"""Cancel a run.

A run that no worker has picked up becomes CANCELLED at once. A run that is running or starting becomes CANCELLING: its
worker stops the process and reports CANCELLED. If no worker is left, Prefect's own clean-up service sets CANCELLED
after `PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS` (`spine up` sets 30), also for child
runs inside the cancelled process.
"""

import asyncio
from contextlib import suppress
from itertools import pairwise
from typing import Any

from spine.auth.callers import Caller
from spine.auth.changes import record_change
from spine.errors import Conflict
from spine.prefect.client import FlowRun, Prefect, SetStateStatus, State
from spine.prefect.states import Cancelled, Cancelling, is_final, rejection_of
from spine.schemas import ActionResponse
from spine.workflows.run_detail import find_run


async def cancel_run(prefect: Prefect, caller: Caller, run_id: str) -> ActionResponse:
    """Cancel a run and the child runs that have their own process. Safe to repeat.

    Raises `NotFound`, and `Conflict` if the run has ended.
    """
    run = await find_run(prefect, caller.domains, run_id)
    if is_final(run):
        raise Conflict(f"Run {run_id} has already ended as {run.state_name}; only a run in progress can be cancelled.")
    message = f"Cancelled over the API by {caller.name}."
    at_once = await _cancel(prefect, run, message)
    await _cancel_children(prefect, run, message)
    record_change("cancelled", "run", run.id, run.name)
    outcome = "is cancelled" if at_once else "is being stopped by its worker"
    return ActionResponse(id=str(run.id), status="cancelled", message=f"Run {run.name!r} {outcome}.")


async def _cancel_children(prefect: Prefect, parent: FlowRun, message: str) -> None:
    children = await prefect.child_runs([parent.id])
    # A child without a deployment runs inside its parent's process and ends with it.
    separate = [child for child in children if child.deployment_id is not None and not is_final(child)]
    await asyncio.gather(*(_cancel_child(prefect, child, message) for child in separate))
    await asyncio.gather(*(_cancel_children(prefect, child, message) for child in children))


async def _cancel_child(prefect: Prefect, child: FlowRun, message: str) -> None:
    # A child that has ended in the meantime needs no cancelling.
    with suppress(Conflict):
        await _cancel(prefect, child, message)


async def _cancel(prefect: Prefect, run: FlowRun, message: str) -> bool:
    """Propose the state that stops `run`; return whether it is cancelled already."""
    if run.state is not None and run.state.is_cancelling():
        return False
    if _has_process(run) or not await _propose(prefect, run, Cancelled(message=message)):
        return await _propose(prefect, run, Cancelling(message=message))
    if await _starts_anyway(prefect, run):
        await prefect.set_run_state(run.id, Cancelling(message=message), force=True)
        return False
    return True


async def _propose(prefect: Prefect, run: FlowRun, state: State[Any]) -> bool:
    """Propose `state`; return whether the run is CANCELLED now. Prefect may set another state than the proposed one.

    Raises `Conflict` if the run has ended in another way, or if Prefect rejects CANCELLING.
    """
    result = await prefect.set_run_state(run.id, state)
    if result.status is SetStateStatus.ACCEPT:
        return result.state is None or result.state.is_cancelled()
    now = await prefect.read_run(run.id)
    if now.state is not None and now.state.is_cancelled():
        return True
    if is_final(now):
        raise Conflict(f"Run {run.id} ended as {now.state_name} before it could be cancelled.")
    if state.is_cancelling():
        raise Conflict(f"Prefect rejected the cancellation of run {run.id}: {rejection_of(result)}")
    return False


def _has_process(run: FlowRun) -> bool:
    """Whether the run has a process or is getting one; the process stays while the run waits for its next attempt."""
    if run.state is None or not run.state.is_scheduled():
        return True
    return run.run_count > 0 and run.empirical_policy.retry_type == "in_process"


async def _starts_anyway(prefect: Prefect, run: FlowRun) -> bool:
    """Whether a worker picked up the run just before it was CANCELLED: Prefect then lets it start."""
    states = await prefect.run_states(run.id)
    picked_up = any(one.is_pending() and then.is_cancelled() for one, then in pairwise(states))
    return picked_up and (states[-1].is_cancelled() or not states[-1].is_final())
