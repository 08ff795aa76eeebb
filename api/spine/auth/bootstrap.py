"""The admin key that `spine up` makes, so that its API can be called."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.auth.callers import Scope
from spine.auth.service import generate_key, hash_key
from spine.database import make_engine, make_sessions, transaction
from spine.private_files import write_private_file
from spine.settings import Settings
from spine.tables.api_keys import ApiKey
from spine.tables.base import utc_now

ADMIN = "admin"


@dataclass(frozen=True)
class AdminKey:
    """Where the admin key is; `secret_to_show` is set only if the key is new."""

    path: Path | None
    secret_to_show: str | None
    note: str


def ensure_admin_key(settings: Settings) -> AdminKey:
    """Activate the admin key: the one in `SPINE_API_KEY`, else the one in `<home>/api-key`, else a new one.

    Safe to repeat. A key that an operator revoked stays revoked, and one that has expired stays expired. Raises
    `DatabaseUnavailable`, and `OSError` if the key file cannot be written.
    """
    if settings.api_key is not None:
        works = asyncio.run(_store(settings, settings.api_key.get_secret_value()))
        note = "from SPINE_API_KEY" if works else "the key in SPINE_API_KEY is revoked or has expired; set another one"
        return AdminKey(path=None, secret_to_show=None, note=note)
    path = settings.home.absolute() / "api-key"
    made = None
    if not path.exists():
        made = generate_key()
        write_private_file(path, made + "\n")
    works = asyncio.run(_store(settings, path.read_text().strip()))
    note = (
        f"in {path}"
        if works
        else f"the key in {path} is revoked or has expired; make another one with `spine keys create`"
    )
    return AdminKey(path=path, secret_to_show=made, note=note)


async def _store(settings: Settings, key: str) -> bool:
    """Make `key` the active admin key; return false if it is revoked or has expired."""
    engine = make_engine(settings.sqlalchemy_url)
    try:
        async with transaction(make_sessions(engine)) as session:
            return await _store_in(session, hash_key(key))
    finally:
        await engine.dispose()


async def _store_in(session: AsyncSession, digest: str) -> bool:
    known = await session.scalar(select(ApiKey).where(ApiKey.key_hash == digest))
    if known is not None:
        # Only an operator of the server can set the variable, so the key in it becomes an admin key.
        known.scopes, known.domains = [Scope.ADMIN.value], None
        return known.revoked_at is None and (known.expires_at is None or known.expires_at > utc_now())
    replaced = await session.scalar(select(ApiKey).where(ApiKey.name == ADMIN, ApiKey.revoked_at.is_(None)))
    if replaced is not None:
        replaced.revoked_at = utc_now()
        await session.flush()
    session.add(ApiKey(name=ADMIN, key_hash=digest, scopes=[Scope.ADMIN.value]))
    return True
