"""`/api/v1/sources/cache`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from spine.auth.callers import Scope
from spine.cache.conditions import ByteRange, RangeNotSatisfiable, http_date, is_unchanged, requested_range
from spine.cache.content import Content, open_content
from spine.cache.content_headers import content_disposition, media_type
from spine.cache.maintenance import CacheMaintenance
from spine.cache.store import BlobStore
from spine.http.dependencies import DomainsDep, PageDep, SessionDep, SessionsDep
from spine.http.errors import envelope
from spine.http.openapi import errors
from spine.http.scopes import needs
from spine.pagination import Page
from spine.schemas import ActionResponse
from spine.sources import cache_queries
from spine.sources.cache_schemas import CacheEntry, CacheStats

router = APIRouter(prefix="/sources/cache", tags=["sources"])

SourceFilter = Annotated[str | None, Query(description="Only entries of the source with this id or name.")]
_BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole content.", **_BYTES},
    206: {"description": "The bytes that `Range` selects.", **_BYTES},
    304: {"description": "The client already has this content."},
}


async def get_store(request: Request) -> BlobStore:
    """The application's store of fetched content."""
    store: BlobStore = request.app.state.cache_store
    return store


async def get_maintenance(request: Request) -> CacheMaintenance:
    """What deletes content in the background."""
    maintenance: CacheMaintenance = request.app.state.cache_maintenance
    return maintenance


StoreDep = Annotated[BlobStore, Depends(get_store)]


class ContentResponse(StreamingResponse):
    """Streams bytes of content and closes it, even when the client disconnects."""

    def __init__(self, content: Content, span: ByteRange, status_code: int, headers: dict[str, str]) -> None:
        super().__init__(content.chunks(span.first, span.length), status_code, headers)
        self._content = content

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._content.close()


@router.get("/", include_in_schema=False)
@router.get("", operation_id="list_cache_entries", responses=errors(404, 422))
async def list_entries(
    session: SessionDep, domains: DomainsDep, page: PageDep, source_id: SourceFilter = None
) -> Page[CacheEntry]:
    """List what is in the cache, newest first."""
    return await cache_queries.list_entries(session, domains, source_id, page)


@router.get("/stats", operation_id="get_cache_stats", responses=errors())
async def get_stats(session: SessionDep, domains: DomainsDep) -> CacheStats:
    """Count what is in the cache, and how often it saved a download."""
    return await cache_queries.read_stats(session, domains)


@router.head("/{entry_id}/content", include_in_schema=False)
@router.get(
    "/{entry_id}/content",
    operation_id="get_cache_content",
    response_class=Response,
    responses={**_CONTENT, **errors(404, 416)},
)
async def get_content(
    request: Request, sessions: SessionsDep, store: StoreDep, domains: DomainsDep, entry_id: str
) -> Response:
    """Download the content of an entry, or the bytes that `Range` selects."""
    content = await open_content(sessions, store, domains, entry_id)
    try:
        response = _response(content, request)
    except BaseException:
        await content.close()
        raise
    if not isinstance(response, ContentResponse):
        await content.close()
    return response


def _response(content: Content, request: Request) -> Response:
    entry, etag = content.entry, f'"{content.entry.content_hash}"'
    validators = {"ETag": etag, "Last-Modified": http_date(entry.cached_at), "Accept-Ranges": "bytes"}
    if is_unchanged(request.headers, etag, entry.cached_at):
        return Response(status_code=304, headers=validators)
    headers = {
        **validators,
        "Content-Type": media_type(entry.content_type, entry.encoding),
        "Content-Disposition": content_disposition(entry.name),
        "X-Content-Type-Options": "nosniff",
        "Content-Length": str(entry.size_bytes),
    }
    if request.method == "HEAD":
        return Response(headers=headers)
    try:
        span = requested_range(request.headers, entry.size_bytes, etag, entry.cached_at)
    except RangeNotSatisfiable:
        detail = f"The range starts after the end of the content, which has {entry.size_bytes:,} bytes."
        return envelope(416, detail, headers={**validators, "Content-Range": f"bytes */{entry.size_bytes}"})
    if span is None:
        return ContentResponse(content, ByteRange(0, entry.size_bytes), 200, headers)
    headers["Content-Length"] = str(span.length)
    headers["Content-Range"] = f"bytes {span.first}-{span.first + span.length - 1}/{entry.size_bytes}"
    return ContentResponse(content, span, 206, headers)


@router.delete("/", include_in_schema=False, openapi_extra=needs(Scope.CONFIGURE))
@router.delete("", operation_id="clear_cache", responses=errors(404, 422), openapi_extra=needs(Scope.CONFIGURE))
async def clear_cache(
    sessions: SessionsDep,
    store: StoreDep,
    maintenance: Annotated[CacheMaintenance, Depends(get_maintenance)],
    domains: DomainsDep,
    source_id: SourceFilter = None,
    expired_only: bool = False,
) -> ActionResponse:
    """Remove entries, and their content when no other entry has it and it is not in use.

    The answer comes after some seconds and says what is left: content is removed in the background; while the status
    is `partly_cleared`, repeat the request for the other entries.
    """
    return await cache_queries.clear_cache(sessions, store, maintenance, domains, source_id, expired_only)
