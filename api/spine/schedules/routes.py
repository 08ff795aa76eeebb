"""`/api/v1/schedules`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from spine.auth.callers import Scope
from spine.http.dependencies import CallerDep, DomainsDep, FilterText, IdempotentDep, PageDep, PrefectDep, SessionsDep
from spine.http.openapi import errors
from spine.http.scopes import needs
from spine.pagination import Page
from spine.schedules import commands, preview, queries, runs, update
from spine.schedules.listing import ScheduleListing
from spine.schedules.schemas import (
    NextRunPreview,
    ScheduleCreate,
    ScheduleResponse,
    ScheduleRunStatus,
    ScheduleRunSummary,
    ScheduleUpdate,
    TargetType,
)
from spine.schemas import ActionResponse
from spine.workflows.routes import DomainTagsDep
from spine.workflows.schemas import WorkflowTriggerResponse

router = APIRouter(prefix="/schedules", tags=["schedules"])


async def get_listing(request: Request) -> ScheduleListing:
    """This process's listing of schedules."""
    listing: ScheduleListing = request.app.state.schedule_listing
    return listing


ListingDep = Annotated[ScheduleListing, Depends(get_listing)]


@router.get("/", include_in_schema=False)
@router.get("", operation_id="list_schedules", responses=errors(422))
async def list_schedules(
    prefect: PrefectDep,
    sessions: SessionsDep,
    listing: ListingDep,
    tags: DomainTagsDep,
    page: PageDep,
    enabled: bool | None = None,
    target_type: TargetType | None = None,
    target_name: Annotated[FilterText | None, Query(description="The workflow's name.")] = None,
) -> Page[ScheduleResponse]:
    """List schedules, newest first: those created over the API and those deployed from `prefect.yaml`."""
    query = queries.ScheduleQuery(enabled, target_type, target_name, tags)
    return await queries.list_schedules(prefect, sessions, listing, query, page)


@router.post("/", status_code=201, include_in_schema=False, openapi_extra=needs(Scope.CONFIGURE))
@router.post(
    "",
    operation_id="create_schedule",
    status_code=201,
    responses=errors(400, 409, 413, 415, 422),
    openapi_extra=needs(Scope.CONFIGURE),
)
async def create_schedule(
    prefect: PrefectDep, sessions: SessionsDep, caller: CallerDep, body: ScheduleCreate
) -> ActionResponse:
    """Create a schedule: a Prefect deployment of the target's flow, with one cron or interval schedule."""
    return await commands.create_schedule(prefect, sessions, caller, body, caller.domains)


@router.get("/preview-next", operation_id="preview_next_runs", responses=errors(404, 409, 422))
async def preview_next(
    prefect: PrefectDep,
    domains: DomainsDep,
    tags: DomainTagsDep,
    count: Annotated[int, Query(ge=1, le=100, description="How many runs to show.")] = 5,
    schedule_id: Annotated[str | None, Query(description="Only this schedule, by id or name.")] = None,
) -> list[NextRunPreview]:
    """Show the next runs of all enabled schedules, in order of time."""
    return await preview.preview_next(prefect, count, schedule_id, domains, tags)


@router.get("/{schedule_id}", operation_id="get_schedule", responses=errors(404, 409))
async def get_schedule(
    prefect: PrefectDep, sessions: SessionsDep, listing: ListingDep, domains: DomainsDep, schedule_id: str
) -> ScheduleResponse:
    """Show one schedule, by id or name."""
    return await queries.read_schedule(prefect, sessions, listing, domains, schedule_id)


@router.patch(
    "/{schedule_id}",
    operation_id="update_schedule",
    responses=errors(400, 404, 409, 413, 415, 422),
    openapi_extra=needs(Scope.CONFIGURE),
)
async def update_schedule(
    prefect: PrefectDep,
    sessions: SessionsDep,
    listing: ListingDep,
    domains: DomainsDep,
    schedule_id: str,
    body: ScheduleUpdate,
) -> ScheduleResponse:
    """Change the fields that are sent; values that are so already change nothing, not even planned runs.

    409 for the timing of a schedule with several, for a parameter that each of these sets itself, and for
    `max_instances` of a limit that other deployments share.
    """
    return await update.update_schedule(prefect, sessions, listing, domains, schedule_id, body)


@router.delete(
    "/{schedule_id}",
    operation_id="delete_schedule",
    responses=errors(404, 409),
    openapi_extra=needs(Scope.CONFIGURE),
)
async def delete_schedule(
    prefect: PrefectDep, listing: ListingDep, domains: DomainsDep, schedule_id: str
) -> ActionResponse:
    """Stop all future runs; runs in progress and the history stay."""
    return await commands.delete_schedule(prefect, listing, domains, schedule_id)


@router.post(
    "/{schedule_id}/enable",
    operation_id="enable_schedule",
    responses=errors(404, 409),
    openapi_extra=needs(Scope.CONFIGURE),
)
async def enable_schedule(
    prefect: PrefectDep, sessions: SessionsDep, domains: DomainsDep, schedule_id: str
) -> ActionResponse:
    """Enable a schedule from its next due time on; missed runs are not made up."""
    return await commands.enable_schedule(prefect, sessions, domains, schedule_id)


@router.post(
    "/{schedule_id}/disable",
    operation_id="disable_schedule",
    responses=errors(404, 409),
    openapi_extra=needs(Scope.CONFIGURE),
)
async def disable_schedule(
    prefect: PrefectDep, sessions: SessionsDep, domains: DomainsDep, schedule_id: str
) -> ActionResponse:
    """Disable a schedule: planned runs are deleted, runs in progress continue."""
    return await commands.disable_schedule(prefect, sessions, domains, schedule_id)


@router.post(
    "/{schedule_id}/run-now",
    operation_id="run_schedule_now",
    status_code=201,
    response_model=WorkflowTriggerResponse,
    responses=errors(404, 409, 422),
    openapi_extra=needs(Scope.WRITE),
)
async def run_schedule_now(prefect: PrefectDep, caller: CallerDep, once: IdempotentDep, schedule_id: str) -> Response:
    """Start a run with the schedule's parameters, even if it is disabled."""
    answer = await once.run(lambda operation_id: commands.run_now(prefect, caller, schedule_id, operation_id))
    return Response(answer, status_code=201, media_type="application/json")


@router.get("/{schedule_id}/runs", operation_id="list_schedule_runs", responses=errors(404, 409, 422))
async def list_schedule_runs(
    prefect: PrefectDep, domains: DomainsDep, page: PageDep, schedule_id: str, status: ScheduleRunStatus | None = None
) -> Page[ScheduleRunSummary]:
    """List the runs of a schedule that are due or have started, newest due time first."""
    return await runs.list_schedule_runs(prefect, domains, schedule_id, status, page)
