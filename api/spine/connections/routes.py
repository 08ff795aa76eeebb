"""`/api/v1/sources/connections`."""

from fastapi import APIRouter

from spine.auth.callers import Scope
from spine.connections import service
from spine.connections.schemas import (
    ConnectionTestResponse,
    DatabaseConnectionCreate,
    DatabaseConnectionResponse,
    DbType,
)
from spine.http.dependencies import (
    CallerDep,
    DomainsDep,
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

router = APIRouter(prefix="/sources/connections", tags=["sources"])


@router.get("/", include_in_schema=False)
@router.get("", operation_id="list_connections", responses=errors(422))
async def list_connections(
    session: SessionDep,
    domains: DomainsDep,
    page: PageDep,
    db_type: DbType | None = None,
    enabled: bool | None = None,
) -> Page[DatabaseConnectionResponse]:
    """List database connections, newest first."""
    return await service.list_connections(session, domains, db_type, enabled, page)


@router.post("/", status_code=201, include_in_schema=False, openapi_extra=needs(Scope.CONFIGURE))
@router.post(
    "",
    operation_id="create_connection",
    status_code=201,
    responses=errors(400, 409, 413, 415, 422),
    openapi_extra=needs(Scope.CONFIGURE),
)
async def create_connection(
    session: SessionDep, settings: SettingsDep, caller: CallerDep, body: DatabaseConnectionCreate
) -> ActionResponse:
    """Register a database connection, without connecting to it."""
    return await service.create_connection(session, settings, caller, body)


@router.get("/{connection_id}", operation_id="get_connection", responses=errors(404, 409))
async def get_connection(session: SessionDep, domains: DomainsDep, connection_id: str) -> DatabaseConnectionResponse:
    """Show one connection, by id or name, and the result of its last test."""
    return service.present(await service.find_connection(session, domains, connection_id))


@router.delete(
    "/{connection_id}",
    operation_id="delete_connection",
    responses=errors(404, 409),
    openapi_extra=needs(Scope.CONFIGURE),
)
async def delete_connection(session: SessionDep, domains: DomainsDep, connection_id: str) -> ActionResponse:
    """Delete a connection that no source uses."""
    return await service.delete_connection(session, domains, connection_id)


@router.post(
    "/{connection_id}/test",
    operation_id="test_connection",
    responses=errors(404, 409),
    openapi_extra=needs(Scope.CONFIGURE),
)
async def test_connection(
    sessions: SessionsDep, prefect: PrefectDep, settings: SettingsDep, domains: DomainsDep, connection_id: str
) -> ConnectionTestResponse:
    """Connect with the real driver, run a trivial query, and report the result."""
    return await service.test_connection(sessions, prefect, settings, domains, connection_id)
