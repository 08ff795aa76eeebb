"""The dependencies of routes: the caller, a database session, Prefect, a page."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator
from sqlalchemy.ext.asyncio import AsyncSession

from spine.auth.callers import Caller
from spine.auth.domains import Domains
from spine.database import SessionFactory, reading, transaction
from spine.errors import Forbidden
from spine.http.client_address import client_address
from spine.http.credentials import Credentials
from spine.http.scopes import scope_of
from spine.idempotency.service import IdempotentCall, hash_body
from spine.pagination import PageRequest
from spine.prefect.client import Prefect
from spine.secrets.key_check import OwnKey
from spine.settings import Settings
from spine.text import storable

api_key_header = APIKeyHeader(
    name="X-API-Key", auto_error=False, description="An API key, made with `spine keys create`."
)
bearer_header = HTTPBearer(auto_error=False, description="An API key, or a JWT if the server accepts them.")


# No dependency is replaced with FastAPI's `dependency_overrides`: while there is one, FastAPI analyses the dependencies
# of a route again for each request, which took a third of the time of a request.
async def get_app_settings(request: Request) -> Settings:
    """The application's settings."""
    settings: Settings = request.app.state.settings
    return settings


SettingsDep = Annotated[Settings, Depends(get_app_settings)]


async def get_sessions(request: Request) -> SessionFactory:
    """The application's session factory."""
    sessions: SessionFactory = request.app.state.sessions
    return sessions


async def get_prefect(request: Request) -> Prefect:
    """The application's client of Prefect, with this request's deadline."""
    prefect: Prefect = request.app.state.prefect
    return prefect.for_one_request()


SessionsDep = Annotated[SessionFactory, Depends(get_sessions)]
PrefectDep = Annotated[Prefect, Depends(get_prefect)]


async def require_own_key(request: Request) -> None:
    """Refuse to store or to use secrets with a key that is not that of the database. Raises `KeyMismatch`."""
    own_key: OwnKey = request.app.state.own_key
    await own_key.require()


# For the routes that encrypt or decrypt.
WITH_SECRETS = [Depends(require_own_key)]


async def get_session(request: Request, sessions: SessionsDep) -> AsyncIterator[AsyncSession]:
    """A session for reading, or for a route that changes something: its transaction is then committed before the answer
    is sent.
    """
    opened = reading if request.method in ("GET", "HEAD") else transaction
    async with opened(sessions) as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]


async def authenticate(request: Request) -> Caller:
    """The caller of a request, from its headers alone. Raises `Unauthorized`, `TooManyRequests`, `Unavailable`."""
    api_key, bearer = await api_key_header(request), await bearer_header(request)
    credentials: Credentials = request.app.state.credentials
    settings: Settings = request.app.state.settings
    address = client_address(request.scope, settings.trusted_proxies)
    return await credentials.check(address, api_key, bearer.credentials if bearer else None)


def check_scope(caller: Caller, method: str, route: object) -> None:
    """Raise `Forbidden` without the scope that the route needs: see `spine.http.scopes`."""
    needed = scope_of(method, route)
    if not caller.may(needed):
        raise Forbidden(f"This credential does not have the scope {needed.value!r}, which this request requires.")


async def get_caller(
    request: Request,
    _api_key: Annotated[str | None, Security(api_key_header)],
    _bearer: Annotated[HTTPAuthorizationCredentials | None, Security(bearer_header)],
) -> Caller:
    """The caller, whom `spine.http.gate` authenticated before the body was read.

    The router of `/api/v1` depends on this, so the OpenAPI document says that every route below it needs a credential.
    """
    caller: Caller = request.state.caller
    return caller


CallerDep = Annotated[Caller, Depends(get_caller)]


async def get_domains(caller: CallerDep) -> Domains:
    """The domains that the caller may see and change."""
    return caller.domains


DomainsDep = Annotated[Domains, Depends(get_domains)]


async def get_idempotent_call(
    request: Request,
    sessions: SessionsDep,
    caller: CallerDep,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=255, description="Makes it safe to repeat this request for 24 hours."),
    ] = None,
) -> IdempotentCall:
    """The request's idempotency key and what it applies to; each path has its own keys."""
    return IdempotentCall(
        sessions=sessions,
        owner=caller.id,
        route=f"{request.method} {request.url.path}?{request.url.query}",
        key=idempotency_key,
        body_hash=hash_body(await request.body()),
    )


IdempotentDep = Annotated[IdempotentCall, Depends(get_idempotent_call)]


async def get_page(
    offset: Annotated[int, Query(ge=0, le=2**31 - 1, description="How many rows to skip.")] = 0,
    limit: Annotated[int, Query(ge=1, le=100, description="The maximum number of rows to return.")] = 20,
) -> PageRequest:
    """The page that the query selects."""
    return PageRequest(offset=offset, limit=limit)


PageDep = Annotated[PageRequest, Depends(get_page)]


# Text that rows are compared with; they hold U+FFFD in place of what cannot be stored.
FilterText = Annotated[str, AfterValidator(storable)]
