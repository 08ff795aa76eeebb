"""Whether the store that this process uses is the one of its database.

A process without `SPINE_CACHE_URL`, or with an empty mount, would find that all content is lost, and delete the entries
of all others; on a store of another database it would delete what it does not know. So the store has a marker, which
the database remembers. Whatever deletes compares the two before.
"""

import asyncio

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.cache.failures import StoreMismatch
from spine.cache.store import BlobStore
from spine.database import SessionFactory, transaction
from spine.installation import lock_installation, read_installation
from spine.tables.base import new_id, utc_now
from spine.tables.cache import CacheEntry
from spine.tables.installation import Installation

# A store without any of so many of the newest contents is not the store of this database.
_CONTENTS_TO_FIND = 20
_ADOPT = "run `spine db adopt-cache` with these settings if this store is to be used from now on"


async def require_own_store(sessions: SessionFactory, store: BlobStore) -> None:
    """Compare the store with the database; a database without a store claims this one.

    Raises `StoreMismatch`, another `FetchFailure` if the storage is unavailable, and `DatabaseUnavailable`.
    """
    marker = await asyncio.to_thread(store.read_marker)
    row = await read_installation(sessions)
    if row is not None and row.store_claimed_at is not None:
        if marker == row.store_marker:
            return
        if not (row.store_is_in_home and _is_beside_database(sessions, store)):
            raise _mismatch(store, marker)
        await adopt_store(sessions, store)
        return
    await _claim(sessions, store, marker)


async def adopt_store(sessions: SessionFactory, store: BlobStore) -> None:
    """Make this the store of the database, whatever is in it, and no other store.

    If that is interrupted, the store may have a marker that the database does not know; then repeat it. Raises
    `FetchFailure` and `DatabaseUnavailable`.
    """
    async with transaction(sessions) as session:
        row = await lock_installation(session)
        row.store_marker = new_id()
        await _mark(session, store, row)


async def _claim(sessions: SessionFactory, store: BlobStore, marker: str | None) -> None:
    await _ensure_row(sessions)
    async with transaction(sessions) as session:
        row = await lock_installation(session)
        if row.store_claimed_at is not None:
            # Another process was quicker. It may have another store.
            marker = await asyncio.to_thread(store.read_marker)
            if marker != row.store_marker:
                raise _mismatch(store, marker)
            return
        is_free = marker in (None, row.store_marker) or _is_beside_database(sessions, store)
        if not is_free or not await _has_known_content(session, store):
            raise _mismatch(store, marker)
        await _mark(session, store, row)


async def _has_known_content(session: AsyncSession, store: BlobStore) -> bool:
    """Whether the store has some of the newest content, if there is any: the database may be older than this check."""
    newest = select(CacheEntry.content_hash).order_by(CacheEntry.cached_at.desc()).limit(_CONTENTS_TO_FIND)
    known = (await session.scalars(newest)).all()
    return not known or await asyncio.to_thread(lambda: any(store.size(each) is not None for each in known))


def _is_beside_database(sessions: SessionFactory, store: BlobStore) -> bool:
    """Whether the store is a folder beside a SQLite file: such a folder is of this database alone.

    People delete it to empty the cache, and the file to start again.
    """
    return store.is_in_home and sessions.kw["bind"].dialect.name == "sqlite"


async def _ensure_row(sessions: SessionFactory) -> None:
    """Commit the row before its marker is written: a marker that no row has is that of another database."""
    async with transaction(sessions) as session:
        await lock_installation(session)


async def _mark(session: AsyncSession, store: BlobStore, row: Installation) -> None:
    await asyncio.to_thread(store.write_marker, row.store_marker)
    row.store_claimed_at, row.store_is_in_home = utc_now(), store.is_in_home
    await session.flush()


def _mismatch(store: BlobStore, marker: str | None) -> StoreMismatch:
    found = "it has no marker of one" if marker is None else "it is that of another database"
    return StoreMismatch(
        f"{store.setting} is not the cache of this database: {found}. "
        f"Set SPINE_CACHE_URL to the cache that the other processes use, and mount it; or {_ADOPT}."
    )
