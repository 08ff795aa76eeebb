"""`/api/v1/workflows`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from spine.auth.callers import Scope
from spine.http.dependencies import (
    CallerDep,
    DomainsDep,
    FilterText,
    IdempotentDep,
    PageDep,
    PrefectDep,
    SessionsDep,
)
from spine.http.openapi import errors
from spine.http.scopes import needs
from spine.pagination import Page
from spine.schemas import ActionResponse, Text, UtcTime
from spine.workflows import cancel, definitions, retry, run_detail, run_list, trigger
from spine.workflows.known_domains import DomainTags, KnownDomains
from spine.workflows.known_workflows import KnownWorkflows
from spine.workflows.manual_runs import ManualRuns
from spine.workflows.run_list import RunQuery
from spine.workflows.schemas import (
    RunStatus,
    RunTrigger,
    WorkflowDefinition,
    WorkflowRunDetail,
    WorkflowRunSummary,
    WorkflowTriggerRequest,
    WorkflowTriggerResponse,
)

router = APIRouter(prefix="/workflows", tags=["workflows"])

DomainFilter = FilterText | None
# A retry stores it in a column of this length.
StepName = Annotated[Text, Field(min_length=1, max_length=500)]


async def get_domain_tags(
    request: Request, prefect: PrefectDep, sessions: SessionsDep, domains: DomainsDep
) -> DomainTags:
    """The tags of the domains that the caller may see; None if it may see everything."""
    known: KnownDomains = request.app.state.known_domains
    return await known.tags(prefect, sessions, domains)


async def get_known_workflows(request: Request) -> KnownWorkflows:
    """The deployments that this process knows."""
    known: KnownWorkflows = request.app.state.known_workflows
    return known


async def get_manual_runs(request: Request) -> ManualRuns:
    """The manual runs that this process knows."""
    known: ManualRuns = request.app.state.manual_runs
    return known


KnownWorkflowsDep = Annotated[KnownWorkflows, Depends(get_known_workflows)]
ManualRunsDep = Annotated[ManualRuns, Depends(get_manual_runs)]
DomainTagsDep = Annotated[DomainTags, Depends(get_domain_tags)]


@router.get("/runs", operation_id="list_runs", responses=errors(422))
async def list_runs(
    prefect: PrefectDep,
    manual: ManualRunsDep,
    tags: DomainTagsDep,
    page: PageDep,
    status: RunStatus | None = None,
    workflow_name: FilterText | None = None,
    domain: DomainFilter = None,
    since: Annotated[UtcTime | None, Query(description="Only runs that started at or after this time.")] = None,
    until: Annotated[UtcTime | None, Query(description="Only runs that started at or before this time.")] = None,
    trigger: RunTrigger | None = None,
) -> Page[WorkflowRunSummary]:
    """List runs, newest start first. Runs that a schedule has planned for the future are not listed."""
    query = RunQuery(status, workflow_name, domain, since, until, trigger, tags)
    return await run_list.list_runs(prefect, manual, query, page)


@router.get("/runs/{run_id}", operation_id="get_run", responses=errors(404))
async def get_run(prefect: PrefectDep, sessions: SessionsDep, domains: DomainsDep, run_id: str) -> WorkflowRunDetail:
    """Show one run with its steps."""
    return await run_detail.show_run(prefect, sessions, domains, run_id)


@router.post(
    "/trigger/{workflow_name}",
    operation_id="trigger_workflow",
    status_code=201,
    response_model=WorkflowTriggerResponse,
    responses=errors(400, 404, 409, 413, 415, 422),
    openapi_extra=needs(Scope.WRITE),
)
async def trigger_workflow(
    prefect: PrefectDep,
    known: KnownWorkflowsDep,
    caller: CallerDep,
    once: IdempotentDep,
    workflow_name: str,
    body: WorkflowTriggerRequest | None = None,
) -> Response:
    """Start a run of a workflow. The parameters are checked against the flow's schema first."""
    params = body.params if body else {}
    answer = await once.run(
        lambda operation_id: trigger.trigger_workflow(prefect, known, caller, workflow_name, params, operation_id)
    )
    return Response(answer, status_code=201, media_type="application/json")


@router.post(
    "/runs/{run_id}/cancel",
    operation_id="cancel_run",
    responses=errors(404, 409),
    openapi_extra=needs(Scope.WRITE),
)
async def cancel_run(prefect: PrefectDep, caller: CallerDep, run_id: str) -> ActionResponse:
    """Cancel a run that has not ended, and its child runs."""
    return await cancel.cancel_run(prefect, caller, run_id)


@router.post(
    "/runs/{run_id}/retry",
    operation_id="retry_run",
    responses=errors(400, 404, 409, 422),
    openapi_extra=needs(Scope.WRITE),
)
async def retry_run(
    prefect: PrefectDep,
    sessions: SessionsDep,
    caller: CallerDep,
    run_id: str,
    from_step: Annotated[
        StepName | None, Query(description="Run this step and all later steps again, also those that completed.")
    ] = None,
) -> WorkflowTriggerResponse:
    """Continue a failed or cancelled run. Steps that completed are not executed again."""
    return await retry.retry_run(prefect, sessions, caller, run_id, from_step)


@router.get("/definitions", operation_id="list_definitions", response_model_exclude_unset=True, responses=errors(422))
async def list_definitions(
    prefect: PrefectDep, domains: DomainsDep, page: PageDep, domain: DomainFilter = None
) -> Page[WorkflowDefinition]:
    """List the workflows that can be triggered, by name."""
    return await definitions.list_definitions(prefect, domains, domain, page)


@router.get(
    "/definitions/{workflow_name}",
    operation_id="get_definition",
    response_model_exclude_unset=True,
    responses=errors(404, 409),
)
async def get_definition(prefect: PrefectDep, domains: DomainsDep, workflow_name: str) -> WorkflowDefinition:
    """Show one workflow with its parameters."""
    return await definitions.read_definition(prefect, domains, workflow_name)
