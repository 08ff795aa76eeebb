"""Run a schedule now, whatever its timing and whether it is enabled."""

from spine.auth.callers import Caller
from spine.errors import BadRequest, Conflict
from spine.prefect.client import Prefect
from spine.schedules.deployments import find_schedule, flow_of
from spine.workflows.labels import API_TAG, CALLER_LABEL, SCHEDULE_LABEL
from spine.workflows.schemas import TriggerStatus, WorkflowTriggerResponse


async def run_now(prefect: Prefect, caller: Caller, id_or_name: str, operation_id: str) -> WorkflowTriggerResponse:
    """Start a run with the schedule's parameters; safe to repeat with the same `operation_id`.

    Raises `NotFound`, and `Conflict` when the workflow's code does not take the schedule's parameters any more.
    """
    deployment = await find_schedule(prefect, id_or_name)
    # Read before the run is made: once Prefect has made it, no further call may fail.
    flow = await flow_of(prefect, deployment)
    # Several timings may each have parameters of their own; then those of the deployment apply.
    parameters = deployment.schedules[0].parameters if len(deployment.schedules) == 1 else {}
    try:
        run = await prefect.create_run(
            deployment.id,
            parameters=parameters,
            tags=[API_TAG],
            labels={CALLER_LABEL: caller.name, SCHEDULE_LABEL: deployment.name},
            idempotency_key=f"spine-{operation_id}",
        )
    except BadRequest as reason:
        raise Conflict(f"The schedule {deployment.name!r} cannot run: {reason.detail}") from None
    return WorkflowTriggerResponse(
        run_id=run.id,
        workflow_name=flow.name,
        status=TriggerStatus.PENDING,
        message=f"Run {run.name!r} of the schedule {deployment.name!r} was created and waits for a worker.",
    )
