"""The dependencies of routes: the caller, a database session, Prefect, a page."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator, BeforeValidator
from sqlalchemy.ext.asyncio import AsyncSession

from spine.auth.callers import Caller
from spine.auth.domains import Domains
from spine.database import SessionFactory, transaction
from spine.errors import Forbidden
from spine.http.client_address import client_address
from spine.http.credentials import Credentials
from spine.http.scopes import scope_of
from spine.idempotency.service import IdempotentCall, hash_body
from spine.pagination import PageRequest
from spine.prefect.client import Prefect
from spine.settings import Settings, get_settings
from spine.text import storable

SettingsDep = Annotated[Settings, Depends(get_settings)]

api_key_header = APIKeyHeader(
    name="X-API-Key", auto_error=False, description="An API key, made with `spine keys create`."
)
bearer_header = HTTPBearer(auto_error=False, description="An API key, or a JWT if the server accepts them.")


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


async def get_session(sessions: SessionsDep) -> AsyncIterator[AsyncSession]:
    """A session whose transaction is committed after the route has returned and before the answer is sent."""
    async with transaction(sessions) as session:
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


# The form of ISO 8601 that clients write; `fromisoformat` also accepts any character between date and time.
_ISO_8601 = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII)


def _from_iso(text: object) -> object:
    # Pydantic would also accept numbers, as seconds or milliseconds since 1970.
    if isinstance(text, str):
        try:
            if _ISO_8601.fullmatch(text.upper()):
                return datetime.fromisoformat(text.upper())
        except ValueError:
            pass
        raise ValueError("must be a time in ISO 8601, for example 2026-01-05T06:30:00Z (+ is %2B in a URL)")
    return text


def _as_utc(time: datetime) -> datetime:
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time in UTC is outside the years 1 to 9999") from None


# A naive time in a query means UTC.
QueryTime = Annotated[datetime, BeforeValidator(_from_iso), AfterValidator(_as_utc)]

# Text that rows are compared with; they hold U+FFFD in place of what cannot be stored.
FilterText = Annotated[str, AfterValidator(storable)]
