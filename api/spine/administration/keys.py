"""API keys over the API: the same keys as those of `spine keys`."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.administration.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyResponse, KeyState, Me
from spine.auth import service
from spine.auth.callers import Caller, Scope
from spine.errors import Conflict
from spine.names import check_name
from spine.pagination import Page, PageRequest, make_page, paginate
from spine.schemas import ActionResponse
from spine.tables.api_keys import ApiKey
from spine.tables.base import utc_now
from spine.tables.presenting import present_each

_ARE_GLOBAL = "keys and the audit trail belong to none of them"


def require_administrator(caller: Caller) -> None:
    """Raise `Forbidden` for a caller that is limited to domains: a key of its making could do more than it may."""
    caller.domains.require_unlimited(_ARE_GLOBAL)


def present_caller(caller: Caller) -> Me:
    """The caller as it is shown to itself."""
    patterns = caller.domains.patterns
    scopes = [scope for scope in Scope if scope in caller.scopes]
    domains = None if patterns is None else list(patterns)
    return Me(id=caller.id, name=caller.name, kind=caller.kind, scopes=scopes, domains=domains)


async def list_keys(session: AsyncSession, caller: Caller, page: PageRequest) -> Page[ApiKeyResponse]:
    """A page of keys, newest first, including those that were revoked or have expired."""
    require_administrator(caller)
    keys = select(ApiKey).order_by(ApiKey.created_at.desc(), ApiKey.id.desc())
    rows, total = await paginate(session, keys, page)
    return make_page(present_each([row for (row,) in rows], _present, lambda row: row), total, page)


async def create_key(session: AsyncSession, caller: Caller, body: ApiKeyCreate) -> ApiKeyCreated:
    """Create a key. Raises `BadRequest` for an invalid name, domain or expiry, and `Conflict` for a name in use."""
    require_administrator(caller)
    check_name(body.name)
    scopes = list(dict.fromkeys(body.scopes))
    row, key = await service.create_key(session, body.name, scopes, body.domains or (), body.expires_at)
    return ApiKeyCreated(**_present(row).model_dump(), key=key)


async def revoke_key(session: AsyncSession, caller: Caller, id_or_name: str) -> ActionResponse:
    """Revoke a key, effective from the next request.

    Raises `NotFound` if no active key has this id or name, and `Conflict` for the key of the request: nobody might be
    left who can make another.
    """
    require_administrator(caller)
    row = await service.revoke_key(session, id_or_name)
    if row.id == caller.id:
        raise Conflict("A key cannot revoke itself; use another one, or `spine keys revoke` on the server.")
    return ActionResponse(id=row.id, status="deleted", message=f"The key {row.name!r} is revoked.")


def _present(row: ApiKey) -> ApiKeyResponse:
    return ApiKeyResponse(
        id=row.id,
        name=row.name,
        scopes=row.scopes,
        domains=row.domains,
        state=_state_of(row),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


def _state_of(row: ApiKey) -> KeyState:
    if row.revoked_at is not None:
        return KeyState.REVOKED
    return KeyState.EXPIRED if row.expires_at is not None and row.expires_at <= utc_now() else KeyState.ACTIVE
