"""The connections: create, list, test and delete."""

from typing import Any

from sqlalchemy import ColumnElement, false, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from spine.audit.trail import changing, record
from spine.auth.callers import Caller
from spine.auth.domains import Domains, hidden
from spine.connections.health_check import check_health
from spine.connections.resolved_connection import resolve_connection
from spine.connections.schemas import (
    ConnectionTestResponse,
    DatabaseConnectionCreate,
    DatabaseConnectionResponse,
    DbType,
    HealthStatus,
    SslMode,
)
from spine.connections.usage import open_sessions
from spine.database import SessionFactory, reading, transaction
from spine.egress.addresses import host_refusal
from spine.egress.fetch_failure import FetchFailure
from spine.egress.own_services import endpoint_refusal
from spine.egress.paths import FileRoots
from spine.errors import BadRequest, Conflict, FieldError, Unavailable
from spine.names import check_name
from spine.pagination import Page, PageRequest, make_page, paginate
from spine.prefect.client import Prefect
from spine.schemas import ActionResponse
from spine.secrets.refs import SecretMissing, ref_refusal
from spine.settings import Settings
from spine.tables.base import new_id, utc_now
from spine.tables.connections import DatabaseConnection
from spine.tables.presenting import present_each, present_one
from spine.tables.sources import Source


async def create_connection(
    session: AsyncSession, settings: Settings, caller: Caller, body: DatabaseConnectionCreate
) -> ActionResponse:
    """Register a connection, which belongs to no domain.

    Raises `BadRequest` for a forbidden place, `Conflict` for a name in use, and `Forbidden` for a limited caller.
    """
    caller.domains.require_unlimited("connections belong to none of them")
    check_name(body.name)
    _check_place(settings, body)
    row = DatabaseConnection(**body.model_dump(mode="json"), id=new_id(), created_by=caller.name)
    session.add(row)
    try:
        await session.flush()
    except IntegrityError:
        raise Conflict(f"A connection named {body.name!r} already exists.") from None
    await record(session, "created", "connection", row.id, row.name, after=_settings_of(row))
    return ActionResponse(id=row.id, status="created", message=f"The connection {row.name!r} was registered.")


def _check_place(settings: Settings, body: DatabaseConnectionCreate) -> None:
    if body.db_type is DbType.SQLITE:
        try:
            FileRoots.of(settings).absolute(body.database)
        except FetchFailure as failure:
            raise BadRequest(failure.sentence, [FieldError(("body", "database"), failure.sentence)]) from None
    elif reason := _host_refusal(settings, body):
        raise BadRequest(f"host: {reason}.", [FieldError(("body", "host"), reason)])
    for name in ("password_ref", "ssl_cert_ref"):
        ref = getattr(body, name)
        if ref is not None and (reason := ref_refusal(ref, settings)):
            raise BadRequest(f"{name}: {reason}.", [FieldError(("body", name), reason)])


def _host_refusal(settings: Settings, body: DatabaseConnectionCreate) -> str | None:
    host = body.host or ""
    database = body.database if body.db_type is DbType.POSTGRESQL else None
    refusal = host_refusal(host, settings.allow_private_addresses)
    return refusal or endpoint_refusal(host, body.port, database)


async def list_connections(
    session: AsyncSession, domains: Domains, db_type: DbType | None, enabled: bool | None, page: PageRequest
) -> Page[DatabaseConnectionResponse]:
    """A page of connections, newest first; none for a limited credential."""
    conditions: list[ColumnElement[bool]] = [false()] if domains.is_limited else []
    if db_type is not None:
        conditions.append(DatabaseConnection.db_type == db_type.value)
    if enabled is not None:
        conditions.append(DatabaseConnection.enabled.is_(enabled))
    newest_first = (DatabaseConnection.created_at.desc(), DatabaseConnection.id.desc())
    connections = select(DatabaseConnection).where(*conditions).order_by(*newest_first)
    rows, total = await paginate(session, connections, page)
    shown = present_each(rows, lambda row: _response(row[0]), lambda row: row[0])
    return make_page(shown, total, page)


async def find_connection(
    session: AsyncSession, domains: Domains, id_or_name: str, *, to_change: bool = False
) -> DatabaseConnection:
    """The connection with this id, or else with this name; `to_change` locks it.

    Raises `NotFound`, also for every connection if the credential is limited: a connection reads all that its database
    has, and belongs to no domain.
    """
    found: DatabaseConnection | None = None
    if id_or_name.isprintable():
        for condition in (DatabaseConnection.id == id_or_name.upper(), DatabaseConnection.name == id_or_name):
            matching = select(DatabaseConnection).where(condition)
            found = found or await session.scalar(matching.with_for_update() if to_change else matching)
    if found is None or domains.is_limited:
        raise hidden("connection", id_or_name)
    return found


async def delete_connection(session: AsyncSession, domains: Domains, id_or_name: str) -> ActionResponse:
    """Delete a connection. Raises `NotFound`, and `Conflict` with the sources that use it."""
    row = await find_connection(session, domains, id_or_name, to_change=True)
    users = await _sources_using(session, row.id)
    if users:
        them = "it" if len(users) == 1 else "them"
        raise Conflict(f"The connection {row.name!r} is used by {_list_of(users)}; change or delete {them} first.")
    await session.delete(row)
    await session.flush()
    await record(session, "deleted", "connection", row.id, row.name, before=_settings_of(row))
    return ActionResponse(id=row.id, status="deleted", message=f"The connection {row.name!r} was deleted.")


async def _sources_using(session: AsyncSession, connection_id: str) -> list[str]:
    """The names of the sources that use a connection, in order."""
    names = select(Source.name).where(Source.connection_id == connection_id).order_by(Source.name)
    return list(await session.scalars(names))


def _list_of(sources: list[str]) -> str:
    names = ", ".join(repr(name) for name in sources[:10])
    more = f" and {len(sources) - 10} more" if len(sources) > 10 else ""
    return f"the source{'s' if len(sources) > 1 else ''} {names}{more}"


async def test_connection(
    sessions: SessionFactory, prefect: Prefect, settings: Settings, domains: Domains, id_or_name: str
) -> ConnectionTestResponse:
    """Test a connection and store the result as its health.

    Raises `NotFound`, and `Conflict` if it is disabled. If Prefect or Vault is unreachable, or too many tests are
    running, the result reports that and the stored health stays, because neither says anything about the database.
    """
    async with reading(sessions) as session:
        row = await find_connection(session, domains, id_or_name)
    async with changing("tested", "connection", row.id, row.name) as change:
        response = await _test(sessions, prefect, settings, row)
        change.after = {"success": response.success}
    return response


def _settings_of(row: DatabaseConnection) -> dict[str, Any]:
    """What people set, for the audit trail."""
    return {name: getattr(row, name) for name in DatabaseConnectionCreate.model_fields}


async def _test(
    sessions: SessionFactory, prefect: Prefect, settings: Settings, row: DatabaseConnection
) -> ConnectionTestResponse:
    try:
        result = await check_health(await resolve_connection(row, prefect, settings))
    except (SecretMissing, BadRequest) as missing:
        await _store_health(sessions, row.id, HealthStatus.UNHEALTHY, missing.detail)
        return ConnectionTestResponse(success=False, message=missing.detail, latency_ms=None)
    except Unavailable as reason:
        return ConnectionTestResponse(success=False, message=reason.detail, latency_ms=None)
    status = HealthStatus.HEALTHY if result.success else HealthStatus.UNHEALTHY
    await _store_health(sessions, row.id, status, result.message)
    return ConnectionTestResponse(
        success=result.success,
        message=result.message,
        latency_ms=result.latency_ms,
        warnings=list(result.warnings),
    )


async def _store_health(sessions: SessionFactory, connection_id: str, status: HealthStatus, message: str) -> None:
    row = update(DatabaseConnection).where(DatabaseConnection.id == connection_id)
    health = {"health_status": status.value, "health_message": message, "last_health_check_at": utc_now()}
    async with transaction(sessions) as session:
        await session.execute(row.values(**health))


def present(row: DatabaseConnection) -> DatabaseConnectionResponse:
    """The connection as a response. Raises `Conflict` for one that cannot be read."""
    return present_one(row, lambda: _response(row))


def _response(row: DatabaseConnection) -> DatabaseConnectionResponse:
    return DatabaseConnectionResponse(
        id=row.id,
        name=row.name,
        db_type=DbType(row.db_type),
        host=row.host,
        port=row.port,
        database=row.database,
        username=row.username,
        pool_size=row.pool_size,
        pool_overflow=row.pool_overflow,
        ssl_mode=SslMode(row.ssl_mode),
        enabled=row.enabled,
        last_health_check_at=row.last_health_check_at,
        health_status=HealthStatus(row.health_status),
        health_message=row.health_message,
        active_connections=open_sessions(row.id),
        idle_connections=0,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
