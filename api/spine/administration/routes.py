"""`/api/v1/me`, `/api/v1/keys` and `/api/v1/audit`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from spine.administration import audit_queries, keys
from spine.administration.audit_queries import AuditQuery, Cursor
from spine.administration.export import export_audit
from spine.administration.formats import ExportFormat
from spine.administration.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyResponse, AuditPage, Me
from spine.auth.callers import Scope
from spine.http.dependencies import CallerDep, FilterText, PageDep, SessionDep, SessionsDep
from spine.http.openapi import errors
from spine.http.scopes import needs
from spine.pagination import Page
from spine.schemas import ActionResponse, UtcTime

router = APIRouter(tags=["administration"])

Texts = Annotated[list[FilterText] | None, Query(max_length=50)]
_TEXT: dict[str, Any] = {"schema": {"type": "string"}}
_FILES: dict[int | str, dict[str, Any]] = {200: {"content": {form.media_type: _TEXT for form in ExportFormat}}}


@router.get("/me", operation_id="get_me", responses=errors())
async def get_me(caller: CallerDep) -> Me:
    """Show who the caller is, and what this credential allows."""
    return keys.present_caller(caller)


@router.get("/keys/", include_in_schema=False, openapi_extra=needs(Scope.ADMIN))
@router.get("/keys", operation_id="list_keys", responses=errors(422), openapi_extra=needs(Scope.ADMIN))
async def list_keys(session: SessionDep, caller: CallerDep, page: PageDep) -> Page[ApiKeyResponse]:
    """List API keys, newest first, including those that were revoked or have expired."""
    return await keys.list_keys(session, caller, page)


@router.post("/keys/", status_code=201, include_in_schema=False, openapi_extra=needs(Scope.ADMIN))
@router.post(
    "/keys",
    operation_id="create_key",
    status_code=201,
    responses=errors(400, 409, 413, 415, 422),
    openapi_extra=needs(Scope.ADMIN),
)
async def create_key(session: SessionDep, caller: CallerDep, response: Response, body: ApiKeyCreate) -> ApiKeyCreated:
    """Create an API key. The key itself is in this answer and cannot be read again."""
    response.headers["Cache-Control"] = "no-store"
    return await keys.create_key(session, caller, body)


@router.delete("/keys/{name}", operation_id="revoke_key", responses=errors(404, 409), openapi_extra=needs(Scope.ADMIN))
async def revoke_key(session: SessionDep, caller: CallerDep, name: str) -> ActionResponse:
    """Revoke an API key, by name or id. The next request with it is refused."""
    return await keys.revoke_key(session, caller, name)


async def get_audit_query(
    actor: Texts = None,
    action: Texts = None,
    resource: Annotated[
        Texts, Query(description="A type such as `channel`, or one resource by its id or name: `channel:desk`.")
    ] = None,
    request_id: Texts = None,
    since: Annotated[UtcTime | None, Query(description="Only entries from this time on.")] = None,
    until: Annotated[UtcTime | None, Query(description="Only entries up to this time.")] = None,
) -> AuditQuery:
    """The entries that the query selects; a filter given several times has alternatives."""
    return AuditQuery(actor or (), action or (), resource or (), request_id or (), since, until)


AuditQueryDep = Annotated[AuditQuery, Depends(get_audit_query)]


@router.get("/audit/", include_in_schema=False, response_model=AuditPage, openapi_extra=needs(Scope.ADMIN))
@router.get(
    "/audit",
    operation_id="list_audit",
    response_model=AuditPage,
    responses={**_FILES, **errors(422)},
    openapi_extra=needs(Scope.ADMIN),
)
async def list_audit(
    request: Request,
    session: SessionDep,
    sessions: SessionsDep,
    caller: CallerDep,
    query: AuditQueryDep,
    page: PageDep,
    cursor: Annotated[Cursor | None, Query(description="The `next_cursor` of the page before.")] = None,
) -> Response | AuditPage:
    """List changes, newest first. With `Accept: application/x-ndjson` or `text/csv`, all that match, as a file."""
    keys.require_administrator(caller)
    for form in ExportFormat:
        if form.media_type in request.headers.get("accept", ""):
            named = {"Content-Disposition": f'attachment; filename="audit.{form.value}"'}
            return StreamingResponse(export_audit(sessions, query, form), media_type=form.media_type, headers=named)
    return await audit_queries.list_entries(session, query, page, cursor)
