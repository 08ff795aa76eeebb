"""Cancel a run.

A run that no worker has picked up becomes CANCELLED at once. A run that is running or starting becomes CANCELLING: its
worker stops the process and reports CANCELLED. If no worker is left, Prefect's own clean-up service sets CANCELLED
after `PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS` (`spine up` sets 30), also for child
runs inside the cancelled process.

A worker can pick up a run in the moment in which it is cancelled. Prefect lets a run start from CANCELLED, but not from
CANCELLING, so such a run becomes CANCELLING too (decision 0061).
"""

import asyncio
from contextlib import suppress
from typing import Any

from spine.audit.trail import changing
from spine.auth.callers import Caller
from spine.auth.domains import Domains
from spine.errors import Conflict
from spine.names import domains_in
from spine.prefect.client import FlowRun, Prefect, SetStateStatus, State
from spine.prefect.states import Cancelled, Cancelling, is_final, rejection_of
from spine.schemas import ActionResponse
from spine.workflows.run_detail import find_run

_BY = "Cancelled over the API by "


async def cancel_run(prefect: Prefect, caller: Caller, run_id: str) -> ActionResponse:
    """Cancel a run and the child runs that have their own process. Safe to repeat, also after an error.

    A credential that is limited to domains does not cancel child runs of other domains.

    Raises `NotFound`, and `Conflict` if the run has ended.
    """
    run = await find_run(prefect, caller.domains, run_id)
    if is_final(run) and not await _is_half_cancelled(prefect, run):
        raise Conflict(f"Run {run_id} has already ended as {run.state_name}; only a run in progress can be cancelled.")
    message = f"{_BY}{caller.name}."
    at_once = await _cancel_recorded(prefect, run, message)
    await _cancel_children(prefect, caller.domains, run, message)
    outcome = "is cancelled" if at_once else "is being stopped by its worker"
    return ActionResponse(id=str(run.id), status="cancelled", message=f"Run {run.name!r} {outcome}.")


async def _cancel_children(prefect: Prefect, domains: Domains, parent: FlowRun, message: str) -> None:
    # A child without a deployment runs inside its parent's process and ends with it. Prefect itself looks for children
    # of cancelled runs every few seconds and cancels those that a failed request has not reached.
    children = [
        child
        for child in await prefect.child_runs([parent.id])
        if child.deployment_id is None or domains.allow_any(domains_in(child.tags))
    ]
    separate = [child for child in children if child.deployment_id is not None and not is_final(child)]
    await asyncio.gather(*(_cancel_child(prefect, child, message) for child in separate))
    await asyncio.gather(*(_cancel_children(prefect, domains, child, message) for child in children))


async def _cancel_child(prefect: Prefect, child: FlowRun, message: str) -> None:
    # A child that has ended in the meantime needs no cancelling.
    with suppress(Conflict):
        await _cancel_recorded(prefect, child, message)


async def _cancel_recorded(prefect: Prefect, run: FlowRun, message: str) -> bool:
    before = {"status": run.state_name}
    async with changing("cancelled", "run", run.id, run.name, before=before) as change:
        at_once = await _cancel(prefect, run, message)
        change.after = {"status": "Cancelled" if at_once else "Cancelling"}
    return at_once


async def _cancel(prefect: Prefect, run: FlowRun, message: str) -> bool:
    """Propose the state that stops `run`; return whether it is cancelled already."""
    if run.state is not None and run.state.is_cancelling():
        return False
    if not is_final(run):
        if _has_process(run) or not await _propose(prefect, run, Cancelled(message=message)):
            return await _propose(prefect, run, Cancelling(message=message))
        if not _has_begun(await _attempt(prefect, run)):
            return True
    await _stop_start(prefect, run, Cancelling(message=message))
    return False


async def _stop_start(prefect: Prefect, run: FlowRun, state: State[Any]) -> None:
    """Set CANCELLING for a run that became CANCELLED while a worker started it.

    Raises `Conflict` if the run has ended in the meantime.
    """
    try:
        is_cancelled = await _propose(prefect, run, state)
    except Conflict:
        if is_final(await prefect.read_run(run.id)):
            raise
        # Prefect rejected it for the cancelled run, which has begun since.
        is_cancelled = await _propose(prefect, run, state)
    if is_cancelled:
        # Prefect's rules do not let a run leave CANCELLED for CANCELLING.
        await prefect.set_run_state(run.id, state, force=True)


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


async def _is_half_cancelled(prefect: Prefect, run: FlowRun) -> bool:
    """Whether a request that failed half way has left the run CANCELLED although a worker had picked it up."""
    if run.state is None or not run.state.is_cancelled() or not (run.state.message or "").startswith(_BY):
        return False
    attempt = await _attempt(prefect, run)
    return _has_begun(attempt) and not any(state.is_cancelling() for state in attempt)


def _has_begun(attempt: list[State[Any]]) -> bool:
    """Whether a worker has picked up this attempt: Prefect then lets it start, whatever happened since."""
    return any(state.is_pending() or state.is_running() for state in attempt)


async def _attempt(prefect: Prefect, run: FlowRun) -> list[State[Any]]:
    """The states since `run` began to wait for a worker, in no order.

    Prefect gives a state its time before the state takes effect. So if two are proposed at once, the later one may have
    the earlier time: the claim of a worker can seem to follow the cancellation that came after it. Only a state that
    was proposed because of another one is certain to have a later time, as a claim has with the schedule it obeys.
    Prefect marks runs as Late for itself, so these states are no sign.
    """
    states = await prefect.run_states(run.id)
    if run.state is None:
        return states
    began = [one.timestamp for one in states if one.is_scheduled() and one.name != "Late"]
    since = max((time for time in began if time <= run.state.timestamp), default=run.state.timestamp)
    return [state for state in states if state.timestamp > since]
