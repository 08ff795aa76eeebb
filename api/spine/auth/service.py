"""API keys: create, list, change, revoke and check them."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from spine.audit.trail import record
from spine.auth.callers import Caller, Scope
from spine.auth.domains import Domains, parse_patterns
from spine.database import SessionFactory, reading
from spine.errors import BadRequest, Conflict, NotFound, Unauthorized
from spine.grouped import Grouped
from spine.oddities import ODDITIES
from spine.tables.api_keys import LONGEST_NAME, ApiKey
from spine.tables.base import utc_now

MOST_CHECKED_AT_ONCE = 100
_CHECKED = (ApiKey.id, ApiKey.name, ApiKey.key_hash, ApiKey.scopes, ApiKey.domains, ApiKey.expires_at)


def hash_key(key: str) -> str:
    """SHA-256 of a key, hex. Keys are 256 random bits, so a slow password hash would not make them safer."""
    return hashlib.sha256(key.encode()).hexdigest()


def generate_key() -> str:
    """A new random key, with a prefix that secret scanners can recognise."""
    return f"spine_{secrets.token_urlsafe(32)}"


async def create_key(
    session: AsyncSession,
    name: str,
    scopes: Sequence[Scope],
    domains: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Store a new key; return its row and the key itself, which cannot be read again later.

    Without `domains` it is not limited to any. Raises `BadRequest` for an invalid name or domain, for an expiry that
    has passed, and for an admin key that is limited; `Conflict` if an active key has this name.
    """
    if not 1 <= len(name) <= LONGEST_NAME:
        raise BadRequest(f"The name of an API key must have 1 to {LONGEST_NAME} characters; this one has {len(name)}.")
    if domains and Scope.ADMIN in scopes:
        raise BadRequest("An admin key cannot be limited to domains; give it the scope configure, write or read.")
    _refuse_past(expires_at)
    key = generate_key()
    row = ApiKey(
        name=name,
        key_hash=hash_key(key),
        scopes=[scope.value for scope in scopes],
        domains=list(parse_patterns(domains)) or None,
        expires_at=expires_at,
    )
    session.add(row)
    try:
        await session.flush()
    except IntegrityError as error:
        raise Conflict(
            f"An active API key is already named {name!r}; revoke it first or choose another name."
        ) from error
    await record(session, "created", "key", row.id, row.name, after=settings_of(row))
    return row, key


def settings_of(row: ApiKey) -> dict[str, Any]:
    """What people set, for the audit trail."""
    expires_at = row.expires_at.isoformat() if row.expires_at else None
    return {"scopes": row.scopes, "domains": row.domains, "expires_at": expires_at}


async def list_keys(session: AsyncSession) -> list[ApiKey]:
    """All keys, newest first, including revoked ones."""
    return list(await session.scalars(select(ApiKey).order_by(ApiKey.created_at.desc(), ApiKey.id.desc())))


async def revoke_key(session: AsyncSession, id_or_name: str) -> ApiKey:
    """Revoke a key, effective from the next request. Raises `NotFound` if no active key has this id or name."""
    row = await _find_active(session, id_or_name)
    row.revoked_at = utc_now()
    await session.flush()
    await record(session, "revoked", "key", row.id, row.name, before=settings_of(row))
    return row


async def set_expiry(session: AsyncSession, id_or_name: str, expires_at: datetime | None) -> ApiKey:
    """Set when a key expires, effective from the next request; None: never.

    Raises `NotFound` if no active key has this id or name, and `BadRequest` for a time that has passed.
    """
    _refuse_past(expires_at)
    row = await _find_active(session, id_or_name)
    before = settings_of(row)
    row.expires_at = expires_at
    await session.flush()
    await record(session, "updated", "key", row.id, row.name, before=before, after=settings_of(row))
    return row


async def _find_active(session: AsyncSession, id_or_name: str) -> ApiKey:
    active = select(ApiKey).where(ApiKey.revoked_at.is_(None))
    named = active.where((ApiKey.id == id_or_name) | (ApiKey.name == id_or_name))
    row: ApiKey | None = await session.scalar(named) if id_or_name.isprintable() else None
    if row is None:
        raise NotFound(f"No active API key has the id or name {id_or_name!r}.")
    return row


def _refuse_past(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= utc_now():
        raise BadRequest("A key cannot expire in the past; revoke it to end it now.")


async def check_keys(session: AsyncSession, keys: Sequence[str]) -> list[Caller | Unauthorized]:
    """The caller of each key, or the error for a key that is unknown, revoked or expired."""
    digests = [hash_key(key) for key in keys]
    wanted = select(*_CHECKED).where(ApiKey.key_hash.in_(set(digests)), ApiKey.revoked_at.is_(None))
    rows = {row.key_hash: row for row in await session.execute(wanted)}
    return [_caller_of(rows.get(digest), digest) for digest in digests]


def _caller_of(row: Any, digest: str) -> Caller | Unauthorized:
    if row is None or not hmac.compare_digest(row.key_hash, digest):
        return Unauthorized("The API key is unknown or was revoked.")
    if row.expires_at is not None and row.expires_at <= utc_now():
        return Unauthorized(f"The API key expired at {row.expires_at:%Y-%m-%d %H:%M} UTC.")
    domains = Domains(None if row.domains is None else tuple(row.domains))
    return Caller(id=row.id, name=row.name, scopes=_scopes_of(row), domains=domains)


class KeyChecks:
    """Checks keys for one process. Requests that wait at the same time share one statement."""

    def __init__(self, sessions: SessionFactory) -> None:
        self._sessions = sessions
        self._checked = Grouped[str, Caller](self._check, MOST_CHECKED_AT_ONCE)

    async def check(self, key: str) -> Caller:
        """The caller of `key`. Read from the database each time, so that a revocation takes effect at once.

        Raises `Unauthorized` for an unknown, revoked or expired key, and `DatabaseUnavailable`.
        """
        return await self._checked.do(key)

    async def _check(self, keys: Sequence[str]) -> list[Caller | Unauthorized]:
        async with reading(self._sessions) as session:
            return await check_keys(session, keys)


def _scopes_of(row: Any) -> frozenset[Scope]:
    """The scopes of a key; one that Spine does not know grants nothing."""
    known = frozenset(scope for scope in Scope if scope.value in row.scopes)
    if len(known) < len(set(row.scopes)):
        ODDITIES.found(ApiKey.record, row.id, "one of its scopes is not one that Spine knows")
    return known
