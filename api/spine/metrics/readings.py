"""What `/metrics` shows of things that all API processes share: read from the database and from Prefect."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import func, select, text
from ulid import ULID

from spine.alerts.delivery_health import DeliveryHealth, read_delivery_health
from spine.database import SessionFactory, reading
from spine.errors import NotFound, SpineError
from spine.prefect.client import Prefect
from spine.run_history.heartbeats import count_silent_runs
from spine.run_history.lag import Lag, read_lag
from spine.settings import Settings
from spine.sources.schemas import FetchStatus
from spine.tables.base import utc_now
from spine.tables.cache import HITS, MISSES, CacheBlob, CacheCounter, CacheEntry
from spine.tables.sources import Fetch

# Prometheus gives up after ten seconds, and what one part lacks must not hide the others.
SECONDS_FOR_A_READING = 2
RECENT = timedelta(hours=1)

Found = TypeVar("Found")


@dataclass(frozen=True)
class CacheUse:
    """What is in the cache, and how often it was read with and without a download."""

    entries: int
    bytes: int
    hits: int
    misses: int


@dataclass(frozen=True)
class Readings:
    """All readings; None is what could not be read now."""

    revision: str | None
    deliveries: DeliveryHealth | None
    # Fetches that were requested within the last hour, by status.
    fetches: dict[FetchStatus, int] | None
    cache: CacheUse | None
    lag: Lag | None
    silent_runs: int | None
    # Online workers of `SPINE_WORK_POOL`.
    workers: int | None


async def read_all(sessions: SessionFactory, prefect: Prefect, settings: Settings) -> Readings:
    """Read everything at once, each for at most two seconds."""
    async with asyncio.TaskGroup() as group:
        revision = group.create_task(_or_none(_read_revision(sessions)))
        deliveries = group.create_task(_or_none(read_delivery_health(sessions)))
        fetches = group.create_task(_or_none(_count_fetches(sessions)))
        cache = group.create_task(_or_none(_read_cache(sessions)))
        lag = group.create_task(_or_none(read_lag(prefect, sessions)))
        silent_runs = group.create_task(_or_none(count_silent_runs(prefect)))
        workers = group.create_task(_or_none(_count_workers(prefect, settings.work_pool)))
    return Readings(
        revision=revision.result(),
        deliveries=deliveries.result(),
        fetches=fetches.result(),
        cache=cache.result(),
        lag=lag.result(),
        silent_runs=silent_runs.result(),
        workers=workers.result(),
    )


async def _or_none(read: Coroutine[Any, Any, Found]) -> Found | None:
    try:
        return await asyncio.wait_for(read, SECONDS_FOR_A_READING)
    except (SpineError, TimeoutError):
        return None


async def _read_revision(sessions: SessionFactory) -> str:
    async with reading(sessions) as session:
        return str(await session.scalar(text("SELECT version_num FROM alembic_version")))


async def _count_fetches(sessions: SessionFactory) -> dict[FetchStatus, int]:
    # Ids are in the order of time, so that the index of the primary key finds them.
    first = str(ULID.from_datetime(utc_now() - RECENT))[:10]
    counts = select(Fetch.status, func.count()).where(Fetch.id >= first).group_by(Fetch.status)
    async with reading(sessions) as session:
        found = {row[0]: row[1] for row in await session.execute(counts)}
    return {status: found.get(status.value, 0) for status in FetchStatus}


async def _read_cache(sessions: SessionFactory) -> CacheUse:
    async with reading(sessions) as session:
        entries = await session.scalar(select(func.count()).select_from(CacheEntry)) or 0
        size = int(await session.scalar(select(func.sum(CacheBlob.size_bytes))) or 0)
        counters = {row.name: row.value for row in await session.scalars(select(CacheCounter))}
    return CacheUse(entries, size, counters.get(HITS, 0), counters.get(MISSES, 0))


async def _count_workers(prefect: Prefect, pool: str) -> int:
    try:
        return len(await prefect.online_workers(pool))
    except NotFound:
        # There is no such pool.
        return 0
