"""The life of a fetch, written down at each step: begun, alive, read by one process at a time, ended.

A source is read by one fetch at a time, the one that its row names. Each fetch that is RUNNING renews a promise to be
alive. When it no longer does, its process is gone, or cannot reach the database. So whoever sees that gives it a last
call, which a renewal takes back; after that it is dead, and the source is free for the next one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import and_, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.cache.entries import NewEntry, count_read, store_entries
from spine.cache.leases import release_leases
from spine.database import SessionFactory, keep_writers_out, reading, transaction
from spine.errors import Conflict, NotFound
from spine.sources.fetch_results import Ending, write_ending
from spine.sources.schemas import FetchTrigger
from spine.tables.base import new_id, utc_now
from spine.tables.sources import GOOD, OPEN, RUNNING, Fetch, Source

# Who has not renewed the promise for this long may be gone.
LEASE = timedelta(seconds=20)
# Longer than a process takes to renew its promise once the database is back, however its last try went.
GRACE_PERIOD = timedelta(seconds=15)


@dataclass(frozen=True)
class Beginning:
    """What a flow run knows of itself when it begins to fetch."""

    run_id: UUID
    trigger: FetchTrigger
    triggered_by: str | None
    force: bool
    execution_id: str | None


@dataclass(frozen=True)
class Begun:
    """A fetch that is under way."""

    fetch_id: str
    source_id: str
    source_name: str
    began_at: datetime


async def find_source(session: AsyncSession, id_or_name: str, *, to_change: bool = False) -> Source:
    """The source with this id, or else this name; the first statement of a transaction that is `to_change` it.

    Raises `NotFound`.
    """
    if to_change:
        await keep_writers_out(session)
    found: Source | None = None
    if id_or_name.isprintable():
        for mine in (Source.id == id_or_name.upper(), Source.name == id_or_name):
            wanted = select(Source).where(mine)
            found = found or await session.scalar(wanted.with_for_update() if to_change else wanted)
    if found is None:
        raise NotFound(f"No source has the id or name {id_or_name!r}.")
    return found


async def begin(sessions: SessionFactory, id_or_name: str, fetch_id: str | None, beginning: Beginning) -> Begun:
    """Set a fetch to RUNNING; one that nobody has asked the API for is written down now.

    Raises `NotFound` for a source that is gone, and `Conflict` for one that is disabled.
    """
    now = utc_now()
    async with transaction(sessions) as session:
        source = await find_source(session, id_or_name, to_change=True)
        fetch = await session.get(Fetch, fetch_id) if fetch_id else await _of_run(session, beginning.run_id)
        # A copy of a run in Prefect's UI carries the id of the fetch that it is a copy of.
        if fetch is not None and fetch.run_id not in (None, beginning.run_id):
            fetch = None
        if not source.enabled:
            if fetch is not None and fetch.status in OPEN:
                refusal = Ending(error="The source was disabled before this began.", error_category="CONFIG")
                await write_ending(session, source, fetch, refusal.silent())
            refused = True
        else:
            fetch = fetch or _written_down(session, source, beginning)
            _set_running(fetch, beginning, now)
            fetch.config_version = source.config_version
            refused = False
    if refused or fetch is None:
        raise Conflict(f"The source {source.name!r} is disabled; enable it to fetch it.")
    return Begun(fetch.id, source.id, source.name, now)


def _written_down(session: AsyncSession, source: Source, beginning: Beginning) -> Fetch:
    fetch = Fetch(
        id=new_id(),
        source_id=source.id,
        trigger=beginning.trigger.value,
        triggered_by=beginning.triggered_by,
        force=beginning.force,
    )
    session.add(fetch)
    return fetch


def _set_running(fetch: Fetch, beginning: Beginning, now: datetime) -> None:
    fetch.status, fetch.started_at, fetch.completed_at = RUNNING, now, None
    fetch.run_id, fetch.execution_id = beginning.run_id, beginning.execution_id
    fetch.error, fetch.error_category, fetch.joined = None, None, None
    fetch.alive_until, fetch.last_call = now + LEASE, None


async def _of_run(session: AsyncSession, run_id: UUID) -> Fetch | None:
    """The fetch of a run that is retried."""
    mine = select(Fetch).where(Fetch.run_id == run_id).order_by(Fetch.id).limit(1)
    return (await session.scalars(mine)).first()


async def renew_lease(sessions: SessionFactory, fetch_id: str) -> bool:
    """Renew the promise of a fetch; False when it was given up meanwhile, and not when it has ended well."""
    mine = update(Fetch).where(Fetch.id == fetch_id, Fetch.status == RUNNING)
    renewing = mine.values(alive_until=utc_now() + LEASE, last_call=None).returning(Fetch.id)
    async with transaction(sessions) as session:
        if (await session.execute(renewing)).first() is not None:
            return True
        return await session.scalar(select(Fetch.status).where(Fetch.id == fetch_id)) in GOOD


def lease_has_expired(fetch: Fetch, now: datetime) -> bool:
    """Whether the process that runs a fetch has broken its promise."""
    return fetch.status == RUNNING and fetch.alive_until is not None and fetch.alive_until < now


def is_abandoned(fetch: Fetch, now: datetime) -> bool:
    """Whether the process that ran a fetch is gone without a word: it has not heard its last call either."""
    return lease_has_expired(fetch, now) and fetch.last_call is not None and fetch.last_call < now


async def start_grace_period(session: AsyncSession, fetch_ids: Sequence[str]) -> None:
    """Give those of these fetches that are silent their last call, if they have not had it."""
    now = utc_now()
    silent = (Fetch.status == RUNNING, Fetch.alive_until < now, Fetch.last_call.is_(None))
    calling = update(Fetch).where(Fetch.id.in_(fetch_ids), *silent).values(last_call=now + GRACE_PERIOD)
    await session.execute(calling)


async def claim_source(sessions: SessionFactory, source_id: str, fetch_id: str) -> str | None:
    """Take the right to read a source, or keep it; None when it is this fetch's, else the fetch that has it."""
    now = utc_now()
    is_alive = or_(Fetch.alive_until >= now, Fetch.last_call.is_(None), Fetch.last_call >= now)
    its_reader = exists().where(Fetch.id == Source.reader, Fetch.status == RUNNING, is_alive)
    free = or_(Source.reader.is_(None), Source.reader == fetch_id, ~its_reader)
    taking = update(Source).where(Source.id == source_id, free).values(reader=fetch_id)
    async with transaction(sessions) as session:
        if (await session.execute(taking.returning(Source.id))).first() is not None:
            return None
        reader = await session.scalar(select(Source.reader).where(Source.id == source_id)) or ""
        await start_grace_period(session, [reader])
        return reader


async def end(
    sessions: SessionFactory,
    fetch_id: str,
    ending: Ending,
    content: Sequence[NewEntry] | None = None,
    expires_at: datetime | None = None,
) -> Fetch | None:
    """Write down how a fetch ended, with its content, its source's statistics and whom to tell, in one transaction.

    None when it had ended before, or when content was read by one that had lost the right to.
    """
    async with transaction(sessions) as session:
        await keep_writers_out(session)
        # In the order in which everybody locks them.
        source = await _locked_source(session, fetch_id)
        fetch = await session.scalar(select(Fetch).where(Fetch.id == fetch_id).with_for_update())
        if source is None or fetch is None or fetch.status not in OPEN:
            return None
        if content is not None:
            if source.reader != fetch.id:
                return None
            if ending.config_version != source.config_version:
                # It was changed meanwhile: the next fetch must not take what was read before for unchanged.
                content = [entry.with_validators({}) for entry in content]
            await store_entries(session, source.id, fetch.id, content, expires_at)
        if source.reader == fetch.id:
            source.reader = None
        await write_ending(session, source, fetch, ending)
        await release_leases(session, fetch.id)
        if ending.error is None:
            await count_read(session, hit=ending.downloads == 0)
        return fetch


async def good_end(sessions: SessionFactory, fetch_id: str) -> Fetch | None:
    """A fetch that has ended well; None while it has not."""
    mine = select(Fetch).where(Fetch.id == fetch_id, Fetch.status.in_(GOOD))
    async with reading(sessions) as session:
        return (await session.scalars(mine)).one_or_none()


async def _locked_source(session: AsyncSession, fetch_id: str) -> Source | None:
    of_fetch = select(Fetch.source_id).where(Fetch.id == fetch_id).scalar_subquery()
    mine = select(Source).where(Source.id == of_fetch).with_for_update()
    return (await session.scalars(mine)).first()


async def joined_ending(sessions: SessionFactory, other_id: str, since: datetime) -> Ending | None:
    """The ending of another fetch of the same source for one that waited for it.

    None unless it brought content since then, as the source is configured now.
    """
    its_source = Source.id == Fetch.source_id, Source.config_version == Fetch.config_version
    async with reading(sessions) as session:
        other = await session.scalar(select(Fetch).join(Source, and_(*its_source)).where(Fetch.id == other_id))
    if other is None or other.status in OPEN or other.content_hash is None:
        return None
    if other.completed_at is None or other.completed_at < since:
        return None
    return Ending(
        content_hash=other.content_hash,
        etag=other.etag,
        last_modified=other.last_modified,
        rows_parsed=other.rows_parsed,
        bad_rows=other.bad_rows or 0,
        bad_row_examples=other.bad_row_examples or (),
        joined=other.id,
        config_version=other.config_version,
    )
