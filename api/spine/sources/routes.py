"""`/api/v1/sources`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from spine.auth.callers import Scope
from spine.http.dependencies import (
    WITH_SECRETS,
    CallerDep,
    DomainsDep,
    FilterText,
    IdempotentDep,
    PageDep,
    PrefectDep,
    SessionDep,
    SessionsDep,
    SettingsDep,
)
from spine.http.openapi import errors
from spine.http.scopes import needs
from spine.pagination import Page
from spine.schemas import ActionResponse
from spine.sources import fetch_queries, queries
from spine.sources.cache_routes import StoreDep
from spine.sources.configs import SourceConfigs
from spine.sources.fetch_requests import request_fetch
from spine.sources.queries import SourceQuery, find_source
from spine.sources.schedule import SourceSchedules
from spine.sources.schemas import (
    FetchDetail,
    FetchStatus,
    FetchSummary,
    FetchTriggerResponse,
    SourceCreate,
    SourceDetail,
    SourceSummary,
    SourceType,
    SourceUpdate,
)
from spine.sources.service import Registry
from spine.workflows.routes import KnownWorkflowsDep

router = APIRouter(prefix="/sources", tags=["sources"])


async def get_registry(
    request: Request, settings: SettingsDep, sessions: SessionsDep, prefect: PrefectDep, caller: CallerDep
) -> Registry:
    """The registry of sources, which acts for this caller."""
    schedules = SourceSchedules(prefect, sessions, request.app.state.schedule_listing, caller)
    return Registry(sessions, SourceConfigs(settings), schedules, caller.domains)


RegistryDep = Annotated[Registry, Depends(get_registry)]
ForceQuery = Annotated[bool, Query(description="Download the content even if the source reports it as unchanged.")]


@router.get("/", include_in_schema=False)
@router.get("", operation_id="list_sources", responses=errors(422))
async def list_sources(
    session: SessionDep,
    domains: DomainsDep,
    page: PageDep,
    source_type: SourceType | None = None,
    domain: FilterText | None = None,
    enabled: bool | None = None,
) -> Page[SourceSummary]:
    """List sources, newest first."""
    return await queries.list_sources(session, SourceQuery(domains, source_type, domain, enabled), page)


@router.post(
    "/",
    status_code=201,
    include_in_schema=False,
    dependencies=WITH_SECRETS,
    openapi_extra=needs(Scope.CONFIGURE),
)
@router.post(
    "",
    operation_id="create_source",
    status_code=201,
    responses=errors(400, 404, 409, 413, 415, 422),
    dependencies=WITH_SECRETS,
    openapi_extra=needs(Scope.CONFIGURE),
)
async def create_source(registry: RegistryDep, caller: CallerDep, body: SourceCreate) -> ActionResponse:
    """Register a source. Nothing is read yet."""
    return await registry.create(caller, body)


@router.get("/fetches/{fetch_id}", operation_id="get_fetch", responses=errors(404, 409))
async def get_fetch(session: SessionDep, prefect: PrefectDep, domains: DomainsDep, fetch_id: str) -> FetchDetail:
    """Show one fetch with its result and the runs that used its content."""
    return await fetch_queries.read_fetch(session, prefect, domains, fetch_id)


@router.get("/{source_id}", operation_id="get_source", responses=errors(404, 409))
async def get_source(registry: RegistryDep, source_id: str) -> SourceDetail:
    """Show one source, by id or name, without its secrets."""
    return await registry.read(source_id)


@router.patch(
    "/{source_id}",
    operation_id="update_source",
    responses=errors(400, 404, 409, 413, 415, 422),
    dependencies=WITH_SECRETS,
    openapi_extra=needs(Scope.CONFIGURE),
)
async def update_source(registry: RegistryDep, source_id: str, body: SourceUpdate) -> SourceDetail:
    """Change the fields that are sent; a secret sent as `***` stays. Disabling a source pauses its schedule."""
    return await registry.update(source_id, body)


@router.delete(
    "/{source_id}",
    operation_id="delete_source",
    responses=errors(404),
    openapi_extra=needs(Scope.CONFIGURE),
)
async def delete_source(registry: RegistryDep, store: StoreDep, source_id: str) -> ActionResponse:
    """Delete a source with its schedule, its fetches and its content in the cache."""
    return await registry.delete(store, source_id)


@router.post(
    "/{source_id}/fetch",
    operation_id="fetch_source",
    status_code=201,
    response_model=FetchTriggerResponse,
    responses=errors(404, 409, 422),
    openapi_extra=needs(Scope.WRITE),
)
async def fetch_source(
    sessions: SessionsDep,
    prefect: PrefectDep,
    known: KnownWorkflowsDep,
    caller: CallerDep,
    once: IdempotentDep,
    source_id: str,
    force: ForceQuery = False,
) -> Response:
    """Fetch a source now, or join a fetch that is in progress."""

    async def work(operation_id: str) -> FetchTriggerResponse:
        return await request_fetch(
            prefect, sessions, caller, source_id, force=force, operation_id=operation_id, known=known
        )

    return Response(await once.run(work), status_code=201, media_type="application/json")


@router.get("/{source_id}/fetches", operation_id="list_fetches", responses=errors(404, 422))
async def list_fetches(
    session: SessionDep, domains: DomainsDep, page: PageDep, source_id: str, status: FetchStatus | None = None
) -> Page[FetchSummary]:
    """List the fetches of a source, newest first."""
    return await fetch_queries.list_fetches(session, await find_source(session, domains, source_id), status, page)
