"""Start a run of a workflow."""

from collections.abc import Awaitable, Callable
from typing import Any

from spine.audit.trail import changing
from spine.auth.callers import Caller
from spine.errors import BadRequest, FieldError, NotFound
from spine.json_rule import is_same
from spine.prefect.client import Deployment, FlowRun, Prefect
from spine.prefect.parameters import check_parameters
from spine.prefect.states import is_untouched
from spine.workflows.known_workflows import KnownWorkflows
from spine.workflows.labels import API_TAG, CALLER_LABEL
from spine.workflows.schemas import TriggerStatus, WorkflowTriggerResponse


async def trigger_workflow(
    prefect: Prefect,
    known: KnownWorkflows,
    caller: Caller,
    workflow_name: str,
    params: dict[str, Any],
    operation_id: str,
) -> WorkflowTriggerResponse:
    """Start a run on the workflow's deployment. Safe to repeat with the same `operation_id`.

    Raises `NotFound`, `Conflict` without a deployment, and `BadRequest` that lists each invalid parameter.
    """

    async def create(deployment: Deployment) -> FlowRun:
        return await prefect.create_run(
            deployment.id,
            parameters=params,
            tags=[API_TAG],
            labels={CALLER_LABEL: caller.name},
            idempotency_key=f"spine-{operation_id}",
        )

    async with changing("started", "run", f"spine-{operation_id}", operation_id=operation_id) as change:
        run = await _start_as_known(prefect, known, caller, workflow_name, params, create)
        if run is None:
            deployment = await known.find(prefect, caller.domains, workflow_name)
            refuse_invalid_parameters(workflow_name, deployment, params, "params")
            run = await create(deployment)
        change.resource_id, change.resource_name = str(run.id), run.name
        change.after = {"workflow": workflow_name, "parameters": params}
    return WorkflowTriggerResponse(
        run_id=run.id,
        workflow_name=workflow_name,
        status=TriggerStatus.PENDING,
        message=f"Run {run.name!r} was created and is waiting for a worker.",
    )


async def _start_as_known(
    prefect: Prefect,
    known: KnownWorkflows,
    caller: Caller,
    workflow_name: str,
    params: dict[str, Any],
    create: Callable[[Deployment], Awaitable[FlowRun]],
) -> FlowRun | None:
    """Start the run without reading the deployment; None if that is not certainly right.

    Nothing is refused here, and for limited credentials the deployment is always read, with its domains.
    """
    deployment = None if caller.domains.is_limited else known.current(workflow_name)
    if deployment is None or problems_with(deployment, params):
        return None
    try:
        run = await create(deployment)
    except (NotFound, BadRequest):
        # It was deleted, or its schema has changed.
        known.forget(workflow_name)
        return None
    if known.current(workflow_name) is deployment and _is_run_of(run, deployment, params):
        return run
    # It may have changed just before, and the news has come while the run was created.
    known.forget(workflow_name)
    found = await known.find(prefect, caller.domains, workflow_name)
    if (found.id == deployment.id and not problems_with(found, params)) or not is_untouched(run):
        return run
    await prefect.delete_runs([run.id])
    return None


def _is_run_of(run: FlowRun, deployment: Deployment, params: dict[str, Any]) -> bool:
    return is_same(run.parameters, {**deployment.parameters, **params}) and set(deployment.tags) <= set(run.tags)


def problems_with(deployment: Deployment, given: dict[str, Any]) -> list[FieldError]:
    """What is wrong with the parameters `given` together with the deployment's own."""
    return check_parameters(deployment.parameter_openapi_schema, deployment.parameters, given)


def refuse_invalid_parameters(workflow_name: str, deployment: Deployment, given: dict[str, Any], field: str) -> None:
    """Check the parameters `given` in the body's `field` together with the deployment's own.

    Raises `BadRequest` that lists each invalid parameter.
    """
    if problems := problems_with(deployment, given):
        named = "; ".join(f"{'.'.join(map(str, problem.loc)) or field}: {problem.msg}" for problem in problems)
        located = [FieldError(("body", field, *problem.loc), problem.msg) for problem in problems]
        raise BadRequest(f"Some parameters of the workflow {workflow_name!r} are invalid: {named}.", located)
