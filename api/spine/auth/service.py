"""API keys: create, list, change, revoke and check them."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from spine.auth.callers import Caller, Scope
from spine.auth.domains import Domains, parse_patterns
from spine.errors import BadRequest, Conflict, NotFound, Unauthorized
from spine.tables.api_keys import LONGEST_NAME, ApiKey
from spine.tables.base import utc_now


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
    return row, key


async def list_keys(session: AsyncSession) -> list[ApiKey]:
    """All keys, newest first, including revoked ones."""
    return list(await session.scalars(select(ApiKey).order_by(ApiKey.created_at.desc(), ApiKey.id.desc())))


async def revoke_key(session: AsyncSession, id_or_name: str) -> ApiKey:
    """Revoke a key, effective from the next request. Raises `NotFound` if no active key has this id or name."""
    row = await _find_active(session, id_or_name)
    row.revoked_at = utc_now()
    await session.flush()
    return row


async def set_expiry(session: AsyncSession, id_or_name: str, expires_at: datetime | None) -> ApiKey:
    """Set when a key expires, effective from the next request; None: never.

    Raises `NotFound` if no active key has this id or name, and `BadRequest` for a time that has passed.
    """
    _refuse_past(expires_at)
    row = await _find_active(session, id_or_name)
    row.expires_at = expires_at
    await session.flush()
    return row


async def _find_active(session: AsyncSession, id_or_name: str) -> ApiKey:
    active = select(ApiKey).where(ApiKey.revoked_at.is_(None))
    row = await session.scalar(active.where((ApiKey.id == id_or_name) | (ApiKey.name == id_or_name)))
    if row is None:
        raise NotFound(f"No active API key has the id or name {id_or_name!r}.")
    return row


def _refuse_past(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= utc_now():
        raise BadRequest("A key cannot expire in the past; revoke it to end it now.")


async def check_key(session: AsyncSession, key: str) -> Caller:
    """The caller of `key`. Read from the database each time, so that a revocation takes effect at once.

    Raises `Unauthorized` for an unknown, revoked or expired key.
    """
    digest = hash_key(key)
    row = await session.scalar(select(ApiKey).where(ApiKey.key_hash == digest, ApiKey.revoked_at.is_(None)))
    if row is None or not hmac.compare_digest(row.key_hash, digest):
        raise Unauthorized("The API key is unknown or was revoked.")
    if row.expires_at is not None and row.expires_at <= utc_now():
        raise Unauthorized(f"The API key expired at {row.expires_at:%Y-%m-%d %H:%M} UTC.")
    domains = Domains(None if row.domains is None else tuple(row.domains))
    return Caller(id=row.id, name=row.name, scopes=frozenset(Scope(scope) for scope in row.scopes), domains=domains)
