"""The admin key: the one that `spine up` makes, so that its API can be called, and the one in `SPINE_API_KEY`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from spine.actors import operator
from spine.audit.trail import acting_as, record
from spine.auth.callers import Scope
from spine.auth.service import generate_key, hash_key, settings_of
from spine.database import SessionFactory, make_engine, make_sessions, transaction
from spine.log_throttle import LogThrottle
from spine.private_files import write_private_file
from spine.settings import Settings
from spine.tables.api_keys import ApiKey
from spine.tables.base import utc_now

log = structlog.get_logger("spine.auth")

ADMIN = "admin"
UNUSABLE = "the key in SPINE_API_KEY is revoked or has expired; set another one"
SECONDS_AFTER_AN_ERROR = 2.0


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
        note = "from SPINE_API_KEY" if works else UNUSABLE
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


@asynccontextmanager
async def activating_admin_key(sessions: SessionFactory, settings: Settings) -> AsyncIterator[None]:
    """Activate the key in `SPINE_API_KEY`, if it is set, in the background while the block runs.

    The database may be out of reach, or its tables older: then it is repeated.
    """
    if settings.api_key is None:
        yield
        return
    activating = asyncio.create_task(_activate(sessions, settings.api_key.get_secret_value()))
    try:
        yield
    finally:
        activating.cancel()
        await asyncio.wait([activating], timeout=1)


async def _activate(sessions: SessionFactory, key: str) -> None:
    throttle = LogThrottle("admin_key")
    while True:
        try:
            works = await _store_with(sessions, key)
        except IntegrityError:
            # Another process has stored the same key at the same moment.
            continue
        except Exception as error:
            throttle.failed(_activate.__name__, error)
            await asyncio.sleep(SECONDS_AFTER_AN_ERROR)
        else:
            throttle.recovered(_activate.__name__)
            if not works:
                log.warning("admin_key_refused", reason=UNUSABLE)
            return


async def _store(settings: Settings, key: str) -> bool:
    """Make `key` the active admin key; return false if it is revoked or has expired."""
    engine = make_engine(settings.sqlalchemy_url)
    try:
        with acting_as(operator()):
            return await _store_with(make_sessions(engine), key)
    finally:
        await engine.dispose()


async def _store_with(sessions: SessionFactory, key: str) -> bool:
    async with transaction(sessions) as session:
        return await _store_in(session, hash_key(key))


async def _store_in(session: AsyncSession, digest: str) -> bool:
    known = await session.scalar(select(ApiKey).where(ApiKey.key_hash == digest))
    if known is not None:
        # Only an operator of the server can set the variable, so the key in it becomes an admin key.
        before = settings_of(known)
        known.scopes, known.domains = [Scope.ADMIN.value], None
        if settings_of(known) != before:
            await record(session, "updated", "key", known.id, known.name, before=before, after=settings_of(known))
        return known.revoked_at is None and (known.expires_at is None or known.expires_at > utc_now())
    replaced = await session.scalar(select(ApiKey).where(ApiKey.name == ADMIN, ApiKey.revoked_at.is_(None)))
    if replaced is not None:
        replaced.revoked_at = utc_now()
        await session.flush()
        await record(session, "revoked", "key", replaced.id, replaced.name, before=settings_of(replaced))
    made = ApiKey(name=ADMIN, key_hash=digest, scopes=[Scope.ADMIN.value])
    session.add(made)
    await session.flush()
    await record(session, "created", "key", made.id, made.name, after=settings_of(made))
    return True
