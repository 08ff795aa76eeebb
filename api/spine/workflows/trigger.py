"""Start a run of a workflow."""

from typing import Any

from spine.auth.callers import Caller
from spine.auth.changes import record_change
from spine.errors import BadRequest, FieldError
from spine.prefect.client import Deployment, Prefect
from spine.prefect.parameters import check_parameters
from spine.workflows.deployments import find_workflow
from spine.workflows.labels import API_TAG, CALLER_LABEL
from spine.workflows.schemas import TriggerStatus, WorkflowTriggerResponse


async def trigger_workflow(
    prefect: Prefect, caller: Caller, workflow_name: str, params: dict[str, Any], operation_id: str
) -> WorkflowTriggerResponse:
    """Start a run on the workflow's deployment. Safe to repeat with the same `operation_id`.

    Raises `NotFound`, `Conflict` without a deployment, and `BadRequest` that lists each invalid parameter.
    """
    deployment = await find_workflow(prefect, caller.domains, workflow_name)
    refuse_invalid_parameters(workflow_name, deployment, params, "params")
    run = await prefect.create_run(
        deployment.id,
        parameters=params,
        tags=[API_TAG],
        labels={CALLER_LABEL: caller.name},
        idempotency_key=f"spine-{operation_id}",
    )
    record_change("started", "run", run.id, run.name)
    return WorkflowTriggerResponse(
        run_id=run.id,
        workflow_name=workflow_name,
        status=TriggerStatus.PENDING,
        message=f"Run {run.name!r} was created and is waiting for a worker.",
    )


def refuse_invalid_parameters(workflow_name: str, deployment: Deployment, given: dict[str, Any], field: str) -> None:
    """Check the parameters `given` in the body's `field` together with the deployment's own.

    Raises `BadRequest` that lists each invalid parameter.
    """
    problems = check_parameters(deployment.parameter_openapi_schema, deployment.parameters, given)
    if problems:
        named = "; ".join(f"{'.'.join(map(str, problem.loc)) or field}: {problem.msg}" for problem in problems)
        located = [FieldError(("body", field, *problem.loc), problem.msg) for problem in problems]
        raise BadRequest(f"Some parameters of the workflow {workflow_name!r} are invalid: {named}.", located)
