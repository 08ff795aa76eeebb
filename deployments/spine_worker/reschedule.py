"""Handing back the runs of a worker that is stopped, so that the next worker of the pool goes on with them.

What Prefect calls `reschedule` where one run is executed alone, and with its own means: the run's engine is told to
leave the state to us, and the run then awaits its next attempt. Here the process ends first: another worker of the pool
takes the run at once, and there are never two attempts at a time.
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
from spine_worker.fork_servers import Forked

# As long as Prefect gives a run that it stops. `spine up` has less time.
_GRACE_SECONDS = float(os.environ.get("SPINE_WORKER_GRACE_SECONDS", "30"))
_IS_CRASH = os.environ.get("PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR", "").lower() == "crash"
_logger = get_logger("worker.spine")


async def stop_run(context: SharedContext, run: FlowRun, process: Forked, handle: ProcessHandle) -> None:
    """Stop a run that is in progress and hand it back, unless the operator wants it to have crashed."""
    if _IS_CRASH:
        await _end(process, handle)
        if process.returncode:
            await _propose(context.client, run.id, Crashed(message="The worker was stopped."))
        return
    status = await context.control_channel.signal(run.id, "reschedule")
    if status is ControlSignalStatus.ALREADY_CONCLUDED:
        # It has ended, or is being cancelled.
        await _end(process, handle, signalled=True)
        await context.conclude(run.id)
        return
    # An engine that has not heard of it would report a crash.
    await _end(process, handle, grace=_GRACE_SECONDS if status is ControlSignalStatus.ACKNOWLEDGED else 0)
    await _propose(context.client, run.id, AwaitingRetry())


async def return_run(client: PrefectClient, run: FlowRun) -> None:
    """Put a run that was taken and has not begun where it was before."""
    before = run.state or Scheduled()
    name = "Scheduled" if before.name == "Late" else before.name
    await _propose(client, run.id, before.model_copy(update={"id": uuid4(), "name": name, "timestamp": now("UTC")}))


async def see_through(work: Coroutine[Any, Any, None]) -> None:
    """Do all of this, however often the task that waits for it is cancelled."""
    task = asyncio.create_task(work)
    with anyio.CancelScope(shield=True):
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
    task.result()


async def _end(
    process: Forked, handle: ProcessHandle, grace: float = _GRACE_SECONDS, *, signalled: bool = False
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
    """Propose a state for a run that has not ended; one that is being cancelled is CANCELLED."""
    try:
        current = (await client.read_flow_run(run_id)).state
        if current is not None and current.is_cancelling():
            cancelled = current.model_copy(update={"id": uuid4(), "name": "Cancelled", "type": StateType.CANCELLED})
            await client.set_flow_run_state(run_id, cancelled, force=True)
        elif current is None or not current.is_final() or (current.is_crashed() and not state.is_crashed()):
            await propose_state(client, state, flow_run_id=run_id)
            _logger.info("Flow run %s is %s: the worker is stopped.", run_id, state.name)
    except (Abort, Pause, ObjectNotFound) as refusal:
        _logger.info("Flow run %s stays as it is: %s", run_id, refusal)
    except Exception as error:  # The others are to be handed back all the same.
        _logger.error("Flow run %s could not be set to %s: %s", run_id, state.name, error)
