"""Cancel a run.

A run that no process has yet is CANCELLED at once. One that runs is CANCELLING: its worker stops the process and
reports CANCELLED. When no worker is left to do that, Prefect's own service puts it into CANCELLED after
`PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS` (`spine up` sets 30), and does the same for
children that ran inside the cancelled process.
"""

import asyncio
from typing import Any

from api.auth.callers import Caller
from api.errors import Conflict
from api.prefect.client import FlowRun, Prefect, SetStateStatus, State
from api.prefect.states import Cancelled, Cancelling
from api.workflows.runs import find_run
from api.workflows.schemas import ActionResponse

NO_PROCESS_YET = {"SCHEDULED", "PENDING"}


async def cancel_run(prefect: Prefect, caller: Caller, run_id: str) -> ActionResponse:
    """Cancel a run and the child runs that have a process of their own; repeating it is harmless.

    Raises `NotFound`, and `Conflict` when the run has ended.
    """
    run = await find_run(prefect, run_id)
    if _is_final(run):
        raise Conflict(f"Run {run_id} has already ended as {run.state_name}; only a run in progress can be cancelled.")
    message = f"Cancelled over the API by {caller.name}."
    at_once = await _cancel(prefect, run, message)
    await _cancel_children(prefect, run, message)
    told = "is cancelled" if at_once else "is being stopped by its worker"
    return ActionResponse(id=str(run.id), status="cancelled", message=f"Run {run.name!r} {told}.")


async def _cancel_children(prefect: Prefect, parent: FlowRun, message: str) -> None:
    children = [child for child in await prefect.child_runs([parent.id]) if not _is_final(child)]
    # A child without a deployment runs inside its parent's process and ends with it.
    separate = [child for child in children if child.deployment_id is not None]
    await asyncio.gather(*(_cancel(prefect, child, message) for child in separate))
    await asyncio.gather(*(_cancel_children(prefect, child, message) for child in children))


async def _cancel(prefect: Prefect, run: FlowRun, message: str) -> bool:
    """Propose the state that stops `run` and tell whether it is cancelled already."""
    if run.state is not None and run.state.is_cancelling():
        return False
    waits = run.state_type is None or run.state_type.value in NO_PROCESS_YET
    proposed: State[Any] = Cancelled(message=message) if waits else Cancelling(message=message)
    result = await prefect.set_run_state(run.id, proposed)
    if result.status is SetStateStatus.ACCEPT:
        return waits
    # The run moved on between the reading and the proposal; what it is now decides.
    run = await prefect.read_run(run.id)
    if _is_final(run):
        raise Conflict(f"Run {run.id} has meanwhile ended as {run.state_name}.")
    result = await prefect.set_run_state(run.id, Cancelling(message=message))
    if result.status is not SetStateStatus.ACCEPT:
        reason = getattr(result.details, "reason", None) or "no reason given"
        raise Conflict(f"Prefect does not let run {run.id} be cancelled: {reason}")
    return False


def _is_final(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()
