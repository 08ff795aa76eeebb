"""Reschedules the runs of a worker that is stopped, so that another worker of the pool continues them.

Prefect calls this `reschedule`, and has it for a process that executes a single run. The worker uses the same signal:
it requests that the run's engine does not set a final state. The worker ends the process and then sets the run to
AwaitingRetry. The process ends first, because another worker of the pool takes the run at once, and a run must never
have two processes.
"""

import asyncio
import os
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import anyio
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import Abort, ObjectNotFound, Pause
from prefect.logging import get_logger
from prefect.runner._control_channel import ControlSignalStatus
from prefect.runner._process_manager import ProcessHandle
from prefect.states import AwaitingRetry, Crashed, Scheduled
from prefect.types._datetime import now
from prefect.utilities.engine import propose_state

from spine_worker.execution import SharedContext
from spine_worker.forked import ForkedProcess

# Prefect waits this long for a run that it stops. `spine up` waits for a shorter time.
_GRACE_SECONDS = float(os.environ.get("SPINE_WORKER_GRACE_SECONDS", "30"))
_IS_CRASH = os.environ.get("PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR", "").lower() == "crash"
_logger = get_logger("worker.spine")


async def stop_and_reschedule(
    context: SharedContext, run: FlowRun, process: ForkedProcess, handle: ProcessHandle
) -> None:
    """Stop a run that has started and reschedule it, or let it crash if the operator has configured that."""
    if _IS_CRASH:
        await _end(process, handle)
        if process.returncode:
            await _propose(context.client, run.id, Crashed(message="The worker was stopped."))
        return
    status = await context.control_channel.signal(run.id, "reschedule")
    if status is ControlSignalStatus.ALREADY_CONCLUDED:
        # The run has ended or is being cancelled.
        await _end(process, handle, signalled=True)
        await context.conclude(run.id, str(handle.pid))
        return
    # An engine that has not acknowledged the request would report a crash, so its process is killed at once.
    await _end(process, handle, grace=_GRACE_SECONDS if status is ControlSignalStatus.ACKNOWLEDGED else 0)
    await _propose(context.client, run.id, AwaitingRetry())


async def release_claim(client: PrefectClient, run: FlowRun) -> None:
    """Return a run that was claimed and has not started to the state it had before."""
    before = run.state or Scheduled()
    name = "Scheduled" if before.name == "Late" else before.name
    await _propose(client, run.id, before.model_copy(update={"id": uuid4(), "name": name, "timestamp": now("UTC")}))


async def finish_uncancelled(work: Coroutine[Any, Any, None]) -> None:
    """Finish this work, however often the task that waits for it is cancelled."""
    task = asyncio.create_task(work)
    with anyio.CancelScope(shield=True):
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
    task.result()


async def _end(
    process: ForkedProcess, handle: ProcessHandle, grace: float = _GRACE_SECONDS, *, signalled: bool = False
) -> None:
    with suppress(OSError):
        if grace and not signalled:
            handle.graceful_kill()
        with anyio.move_on_after(grace):
            await process.wait()
        if process.returncode is None:
            handle.hard_kill()
            await process.wait()


async def _propose(client: PrefectClient, run_id: UUID, state: State[Any]) -> None:
    """Propose a state for a run that has not ended. A run that is being cancelled becomes CANCELLED."""
    try:
        current = (await client.read_flow_run(run_id)).state
        if current is not None and current.is_cancelling():
            cancelled = current.model_copy(update={"id": uuid4(), "name": "Cancelled", "type": StateType.CANCELLED})
            await client.set_flow_run_state(run_id, cancelled, force=True)
        elif current is None or not current.is_final() or (current.is_crashed() and not state.is_crashed()):
            await propose_state(client, state, flow_run_id=run_id)
            _logger.info("The worker is being stopped: set flow run %s to %s.", run_id, state.name)
    except (Abort, Pause, ObjectNotFound) as refusal:
        _logger.info("The state of flow run %s is not changed: %s", run_id, refusal)
    except Exception as error:  # The other runs must still be rescheduled.
        _logger.error("Flow run %s could not be set to %s: %s", run_id, state.name, error)
