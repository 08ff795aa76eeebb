"""The states of a fetch, each written to its row: PENDING, RUNNING under a lease, and ended with a result.

One fetch at a time reads a source: the one that has the claim on it, which is written in the source's row. A fetch that
is RUNNING renews its lease. When a lease expires, the process of its fetch is gone or cannot reach the database; the
first to notice starts a grace period, which a renewal ends. A fetch that has not renewed its lease by the end of the
grace period is abandoned: its claim is void, and another fetch may read the source.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import and_, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from ulid import ULID

from spine.auth.domains import EVERY_DOMAIN
from spine.cache.entries import NewEntry, count_read, store_entries
from spine.cache.leases import release_leases
from spine.database import SessionFactory, reading, transaction
from spine.errors import Conflict
from spine.schemas import ErrorCategory
from spine.sources.fetch_results import FetchResult, record_result
from spine.sources.queries import find_source
from spine.sources.schemas import FetchTrigger
from spine.tables.base import new_id, utc_now
from spine.tables.sources import GOOD, OPEN, RUNNING, Fetch, Source

LEASE = timedelta(seconds=20)
# Longer than a process takes to renew its lease once the database is back, however its last attempt went.
GRACE_PERIOD = timedelta(seconds=15)


@dataclass(frozen=True)
class FetchRun:
    """The flow run that executes a fetch."""

    run_id: UUID
    trigger: FetchTrigger
    triggered_by: str | None
    force: bool
    execution_id: str | None


@dataclass(frozen=True)
class OpenFetch:
    """A fetch that is PENDING or RUNNING, with the name and the domain of its source."""

    fetch_id: str
    source_id: str
    source_name: str
    status: str
    force: bool
    # None until a run was created for it.
    run_id: UUID | None
    # None until the run has started.
    started_at: datetime | None
    domain: str | None = None

    @classmethod
    def from_rows(cls, fetch: Fetch, source: Source) -> "OpenFetch":
        """What the two rows say now."""
        return cls(
            fetch.id,
            source.id,
            source.name,
            fetch.status,
            fetch.force,
            fetch.run_id,
            fetch.started_at,
            source.domain,
        )


def disabled(source: Source) -> Conflict:
    """The error for a fetch of a source that is disabled."""
    return Conflict(f"The source {source.name!r} is disabled; enable it to fetch it.")


async def start_fetch(sessions: SessionFactory, id_or_name: str, fetch_id: str | None, run: FetchRun) -> OpenFetch:
    """Set a fetch to RUNNING. A run that no request was recorded for gets a new row.

    Raises `NotFound` for a source that was deleted, and `Conflict` for one that is disabled; the fetch has FAILED then.
    """
    now = utc_now()
    async with transaction(sessions) as session:
        source = await find_source(session, EVERY_DOMAIN, id_or_name, to_change=True)
        fetch = await session.get(Fetch, fetch_id) if fetch_id else await _fetch_of_run(session, run.run_id)
        # A copy of a run, made in Prefect's UI, has the `fetch_id` of the original in its parameters.
        if fetch is not None and fetch.run_id not in (None, run.run_id):
            fetch = None
        if source.enabled:
            fetch = fetch or _new_fetch(session, source, run, await _free_id(session, fetch_id))
            _set_running(fetch, source, run, now)
            return OpenFetch.from_rows(fetch, source)
        if fetch is not None and fetch.status in OPEN:
            error = "The source was disabled before the fetch started."
            refusal = FetchResult(error=error, error_category=ErrorCategory.CONFIG, raises_alert=False)
            await record_result(session, source, fetch, refusal)
    raise disabled(source)


async def _free_id(session: AsyncSession, fetch_id: str | None) -> str:
    """The id of the request that a run was started for, if no row has it: the answer to the request was lost."""
    with suppress(ValueError):
        if fetch_id and str(ULID.from_str(fetch_id)) == fetch_id and await session.get(Fetch, fetch_id) is None:
            return fetch_id
    return new_id()


def _new_fetch(session: AsyncSession, source: Source, run: FetchRun, fetch_id: str) -> Fetch:
    fetch = Fetch(
        id=fetch_id,
        source_id=source.id,
        trigger=run.trigger.value,
        triggered_by=run.triggered_by,
    )
    session.add(fetch)
    return fetch


def _set_running(fetch: Fetch, source: Source, run: FetchRun, now: datetime) -> None:
    fetch.status, fetch.started_at, fetch.completed_at = RUNNING, now, None
    fetch.run_id, fetch.execution_id, fetch.force = run.run_id, run.execution_id, run.force
    fetch.error, fetch.error_category, fetch.joined = None, None, None
    fetch.lease_until, fetch.grace_until = now + LEASE, None
    fetch.config_version = source.config_version


async def _fetch_of_run(session: AsyncSession, run_id: UUID) -> Fetch | None:
    """The fetch of a run that is retried."""
    mine = select(Fetch).where(Fetch.run_id == run_id).order_by(Fetch.id).limit(1)
    return (await session.scalars(mine)).first()


async def renew_lease(sessions: SessionFactory, fetch_id: str) -> bool:
    """Renew the lease of a fetch; False when another process has ended the fetch as failed or has deleted it."""
    mine = update(Fetch).where(Fetch.id == fetch_id, Fetch.status == RUNNING)
    renewing = mine.values(lease_until=utc_now() + LEASE, grace_until=None).returning(Fetch.id)
    async with transaction(sessions) as session:
        if (await session.execute(renewing)).first() is not None:
            return True
        return await session.scalar(select(Fetch.status).where(Fetch.id == fetch_id)) in GOOD


def lease_has_expired(fetch: Fetch, now: datetime) -> bool:
    """Whether a RUNNING fetch has not renewed its lease in time."""
    return fetch.status == RUNNING and fetch.lease_until is not None and fetch.lease_until < now


def is_abandoned(fetch: Fetch, now: datetime) -> bool:
    """Whether a RUNNING fetch has not renewed its lease in the grace period either: its process is gone."""
    return lease_has_expired(fetch, now) and fetch.grace_until is not None and fetch.grace_until < now


async def start_grace_period(session: AsyncSession, fetch_ids: Sequence[str]) -> None:
    """Start the grace period of those of these fetches whose lease has expired, unless it has started before."""
    now = utc_now()
    expired = (Fetch.status == RUNNING, Fetch.lease_until < now, Fetch.grace_until.is_(None))
    starting = update(Fetch).where(Fetch.id.in_(fetch_ids), *expired).values(grace_until=now + GRACE_PERIOD)
    await session.execute(starting)


async def claim_source(sessions: SessionFactory, source_id: str, fetch_id: str) -> str | None:
    """Claim the right to read a source. None when this fetch has the claim, else the id of the fetch that has it."""
    now = utc_now()
    is_alive = or_(Fetch.lease_until >= now, Fetch.grace_until.is_(None), Fetch.grace_until >= now)
    is_claimed = exists().where(Fetch.id == Source.claimed_by, Fetch.status == RUNNING, is_alive)
    can_claim = or_(Source.claimed_by.is_(None), Source.claimed_by == fetch_id, ~is_claimed)
    claiming = update(Source).where(Source.id == source_id, can_claim).values(claimed_by=fetch_id)
    async with transaction(sessions) as session:
        if (await session.execute(claiming.returning(Source.id))).first() is not None:
            return None
        claimant = await session.scalar(select(Source.claimed_by).where(Source.id == source_id)) or ""
        await start_grace_period(session, [claimant])
        return claimant


async def finish_fetch(
    sessions: SessionFactory,
    fetch_id: str,
    result: FetchResult,
    content: Sequence[NewEntry] | None = None,
    expires_at: datetime | None = None,
) -> FetchResult | None:
    """Record the result of a fetch, its content, its source's statistics and its alerts in one transaction.

    None when the fetch had ended before, or when it has read content but has lost its claim on the source.
    """
    async with transaction(sessions) as session:
        # The source first, then the fetch: the lock order of all transactions that lock both.
        source = await _lock_source_of(session, fetch_id)
        fetch = await session.scalar(select(Fetch).where(Fetch.id == fetch_id).with_for_update())
        if source is None or fetch is None or fetch.status not in OPEN:
            return None
        if content is not None:
            if source.claimed_by != fetch.id:
                return None
            if result.config_version != source.config_version:
                # The source was changed while it was read. Without validators the next fetch downloads it again.
                content = [entry.with_validators({}) for entry in content]
            await store_entries(session, source.id, fetch.id, content, expires_at)
        if source.claimed_by == fetch.id:
            source.claimed_by = None
        await record_result(session, source, fetch, result)
        await release_leases(session, fetch.id)
        if result.error is None:
            await count_read(session, hit=result.downloads == 0)
        return FetchResult.from_row(fetch)


async def _lock_source_of(session: AsyncSession, fetch_id: str) -> Source | None:
    of_fetch = select(Fetch.source_id).where(Fetch.id == fetch_id).scalar_subquery()
    mine = select(Source).where(Source.id == of_fetch).with_for_update()
    return (await session.scalars(mine)).first()


async def recorded_result(sessions: SessionFactory, fetch_id: str) -> FetchResult | None:
    """The result of a fetch that has succeeded; None for any other."""
    mine = select(Fetch).where(Fetch.id == fetch_id, Fetch.status.in_(GOOD))
    async with reading(sessions) as session:
        fetch = (await session.scalars(mine)).one_or_none()
    return None if fetch is None else FetchResult.from_row(fetch)


async def shared_result(sessions: SessionFactory, other_id: str, since: datetime | None) -> FetchResult | None:
    """The result of another fetch of the same source, for one that started at `since` and waited for it.

    None unless the other one has succeeded after that, with the configuration that the source has now.
    """
    its_source = and_(Source.id == Fetch.source_id, Source.config_version == Fetch.config_version)
    async with reading(sessions) as session:
        other = await session.scalar(select(Fetch).join(Source, its_source).where(Fetch.id == other_id))
    if other is None or other.status in OPEN or other.content_hash is None:
        return None
    if since is None or other.completed_at is None or other.completed_at < since:
        return None
    return replace(FetchResult.from_row(other), joined=other.id, bytes_fetched=0, content_changed=False)
