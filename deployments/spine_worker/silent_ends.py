"""Runs whose process ended without a report of its engine and with status 0, as by `os._exit(0)`.

Prefect takes this status for a success of which the engine has reported the state, and would leave the run RUNNING, or
PENDING if the file of its flow ends the process, as `sys.exit()` at its end does.
"""

from contextlib import suppress
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.exceptions import Abort, ObjectNotFound, Pause
from prefect.states import Crashed
from prefect.utilities.engine import propose_state

# Spine's API knows this sentence: it retries such a run, if its flow has retries.
ENDED_SILENTLY = "The process ended without a report of the run's state, as after `os._exit`."
# Prefect's engine takes this exception for a decision of the server, whoever raises it, and reports no state.
ABORTED = "The run was given up without a state, as after `prefect.exceptions.Abort` was raised."


async def crash_if_silent(client: PrefectClient, run_id: UUID, identifier: str) -> None:
    """Set a run to CRASHED that has not ended, although the process of this identifier has."""
    with suppress(Abort, Pause, ObjectNotFound):
        run = await client.read_flow_run(run_id)
        # Another attempt at the run has another process.
        is_of_process = run.infrastructure_pid == identifier
        if run.state is not None and (run.state.is_running() or run.state.is_pending()) and is_of_process:
            await propose_state(client, Crashed(message=ENDED_SILENTLY), flow_run_id=run_id)
