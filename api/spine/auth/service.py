"""API keys: create, list, revoke and check them."""

import hashlib
import hmac
import secrets

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from spine.auth.callers import Caller, Scope
from spine.errors import BadRequest, Conflict, NotFound, Unauthorized
from spine.tables.api_keys import LONGEST_NAME, ApiKey
from spine.tables.base import utc_now


def hash_key(key: str) -> str:
    """SHA-256 of a key, hex. Keys are 256 random bits, so a slow password hash would not make them safer."""
    return hashlib.sha256(key.encode()).hexdigest()


def generate_key() -> str:
    """A new random key, with a prefix that secret scanners can recognise."""
    return f"spine_{secrets.token_urlsafe(32)}"


async def create_key(session: AsyncSession, name: str, scopes: list[Scope]) -> tuple[ApiKey, str]:
    """Store a new key; return its row and the key itself, which cannot be read again later.

    Raises `BadRequest` for an empty or too long name, and `Conflict` if an active key has this name.
    """
    if not 1 <= len(name) <= LONGEST_NAME:
        raise BadRequest(f"The name of an API key must have 1 to {LONGEST_NAME} characters; this one has {len(name)}.")
    key = generate_key()
    row = ApiKey(name=name, key_hash=hash_key(key), scopes=[scope.value for scope in scopes])
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
    """Revoke a key, effective from the next request.

    Raises `NotFound` if no active key has this id or name.
    """
    active = select(ApiKey).where(ApiKey.revoked_at.is_(None))
    row = await session.scalar(active.where((ApiKey.id == id_or_name) | (ApiKey.name == id_or_name)))
    if row is None:
        raise NotFound(f"No active API key has the id or name {id_or_name!r}.")
    row.revoked_at = utc_now()
    await session.flush()
    return row


async def check_key(session: AsyncSession, key: str) -> Caller:
    """The caller of `key`. Read from the database each time, so that a revocation takes effect at once.

    Raises `Unauthorized` for an unknown or revoked key.
    """
    digest = hash_key(key)
    row = await session.scalar(select(ApiKey).where(ApiKey.key_hash == digest, ApiKey.revoked_at.is_(None)))
    if row is None or not hmac.compare_digest(row.key_hash, digest):
        raise Unauthorized("The API key is unknown or was revoked.")
    return Caller(id=row.id, name=row.name, scopes=frozenset(Scope(scope) for scope in row.scopes))
