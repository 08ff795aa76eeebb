"""One try to fetch a source, from its turn to read it to its entries in the cache."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from typing import TypeVar

import structlog

from spine.cache.entries import NewEntry, current_entries
from spine.cache.eviction import evict
from spine.cache.leases import acquire_lease, acquire_leases
from spine.connections.resolved_connection import open_target
from spine.connections.service import find_connection
from spine.database import database_errors, reading, transaction
from spine.egress.fetch_failure import FetchFailure, FetchLost
from spine.egress.limits import Limits
from spine.errors import SpineError
from spine.sources.configs import SourceConfigs
from spine.sources.fetch_results import Ending
from spine.sources.fetch_state import Begun, claim_source, end, find_source, good_end, joined_ending
from spine.sources.fetching.content import Format, Gathered, Read, Tell, read_items
from spine.sources.fetching.context import CONTENT_LEASE_SECONDS, FetchContext, as_fetch_failures
from spine.sources.readers.base import Reader
from spine.sources.readers.database import open_query_reader
from spine.sources.types.base import SourceConfig
from spine.sources.types.database import DatabaseConfig
from spine.tables.base import utc_now
from spine.tables.sources import Fetch, Source

log = structlog.get_logger("spine.sources")

T = TypeVar("T")

SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Plan:
    """What is to be read, and what is known of it."""

    source: Source
    config: SourceConfig
    reader: Reader
    limits: Limits
    known: Mapping[str, NewEntry]


@dataclass(frozen=True)
class Outcome:
    """What came of a fetch that went well."""

    status: str
    content_hash: str
    content_changed: bool
    bytes_fetched: int
    rows_parsed: int | None
    bad_rows: int
    bad_row_examples: Sequence[Mapping[str, object]]


async def fetch(context: FetchContext, begun: Begun, *, force: bool, tell: Tell) -> Outcome:
    """Fetch a source that has been begun with, and write down how that ended when it went well.

    Raises `FetchFailure`, of which nothing is written down yet, `Unavailable`, and `FetchLost`.
    """
    # The try before this one may have written that down, and the answer of the database was lost.
    ended = await good_end(context.sessions, begun.fetch_id)
    if ended is not None:
        return _outcome(ended)
    joined = await _wait_for_turn(context, begun, force, tell)
    if joined is not None:
        return _outcome(await end(context.sessions, begun.fetch_id, joined))
    plan = await _plan(context, begun)
    gathered = await _in_thread(lambda run: _gather(context, begun, plan, force, tell, run), plan)
    lifetime = plan.config.cache_ttl_seconds
    expires_at = None if lifetime is None else utc_now() + timedelta(seconds=lifetime)
    outcome = _outcome(
        await end(context.sessions, begun.fetch_id, _ending(plan, gathered), gathered.entries, expires_at)
    )
    if context.settings.cache_max_bytes is not None:
        # Who waits for this fetch has yet to read it, also when it is larger than all that the cache may keep.
        keep = [entry.content_hash for entry in gathered.entries]
        try:
            await evict(context.sessions, context.store, context.settings.cache_max_bytes, keep)
        except Exception as error:
            # The fetch has ended well, and tidying up evicts every hour, too.
            log.warning("eviction_failed", fetch_id=begun.fetch_id, exc_info=error)
    return outcome


def _outcome(fetch: Fetch | None) -> Outcome:
    if fetch is None:
        raise FetchLost
    return Outcome(
        status=fetch.status,
        content_hash=fetch.content_hash or "",
        content_changed=fetch.content_changed,
        bytes_fetched=fetch.bytes_fetched or 0,
        rows_parsed=fetch.rows_parsed,
        bad_rows=fetch.bad_rows or 0,
        bad_row_examples=fetch.bad_row_examples or (),
    )


async def record_failure(context: FetchContext, begun: Begun, error: Exception) -> None:
    """Write down that a fetch has failed for good; nothing when that was done before."""
    told = Ending(error=f"Spine could not go on: {type(error).__name__}.", error_category="INTERNAL")
    if isinstance(error, FetchFailure):
        told = Ending(error=error.sentence, error_category=error.category.value)
    elif isinstance(error, FetchLost):
        told = Ending(error=str(error), error_category="ORCHESTRATION")
    elif isinstance(error, SpineError):
        told = Ending(error=error.detail, error_category="INTERNAL")
    await end(context.sessions, begun.fetch_id, told)


async def _wait_for_turn(context: FetchContext, begun: Begun, force: bool, tell: Tell) -> Ending | None:
    """Wait until this fetch may read its source; the ending of another one where that brought what is wanted."""
    waited_for = ""
    while (other := await claim_source(context.sessions, begun.source_id, begun.fetch_id)) is not None:
        if other != waited_for:
            tell(f"Fetch {other} is reading {begun.source_name}; waiting for it.")
        waited_for = other
        await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
    if not waited_for or force:
        return None
    joined = await joined_ending(context.sessions, waited_for, begun.began_at)
    if joined is not None:
        tell(f"Fetch {waited_for} brought what was wanted.")
    return joined


async def _plan(context: FetchContext, begun: Begun) -> Plan:
    async with reading(context.sessions) as session:
        source = await find_source(session, begun.source_id)
    with as_fetch_failures():
        config = SourceConfigs(context.settings).of_source(source)
    deadline = inf if config.timeout_seconds is None else time.monotonic() + config.timeout_seconds
    limits = Limits(config.max_bytes, deadline, config.timeout_seconds)
    known = await _known(context, begun)
    # Last, as only who has the plan closes it.
    return Plan(source, config, await _open_reader(context, source, config, limits), limits, known)


async def _open_reader(context: FetchContext, source: Source, config: SourceConfig, limits: Limits) -> Reader:
    if not isinstance(config, DatabaseConfig):
        return config.open_reader(await context.secrets(config), context.settings, limits)
    with as_fetch_failures(), database_errors():
        async with context.sessions() as session:
            connection = await find_connection(session, source.connection_id or config.connection)
    with as_fetch_failures():
        target = await open_target(connection, context.prefect, context.settings)
    return open_query_reader(target, config.query, limits)


async def _known(context: FetchContext, begun: Begun) -> dict[str, NewEntry]:
    """The entries of a source whose content is there; it is held from now on."""
    async with transaction(context.sessions) as session:
        entries = [NewEntry.from_row(row) for row in await current_entries(session, begun.source_id)]
        await acquire_leases(session, [entry.content_hash for entry in entries], begun.fetch_id, CONTENT_LEASE_SECONDS)

    def those_there() -> dict[str, NewEntry]:
        return {entry.key: entry for entry in entries if context.store.size(entry.content_hash) == entry.size_bytes}

    return await asyncio.to_thread(those_there)


async def _in_thread(work: Callable[["OneThread"], Awaitable[T]], plan: Plan) -> T:
    """Do the blocking parts of `work` in one thread, and leave no thread at work behind."""
    thread = OneThread()
    try:
        return await work(thread)
    finally:
        # Whatever the thread is at ends at its next look at the clock.
        plan.limits.deadline = -inf
        await thread.close(plan.reader.close)


class OneThread:
    """One thread, without an event loop, that does pieces of work one after the other."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="fetch")

    async def __call__(self, work: Callable[[], T]) -> T:
        """What a piece of work gives."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def close(self, last: Callable[[], None]) -> None:
        """Do the last piece and end the thread, also while this task is being cancelled."""
        done = self._executor.submit(last)
        self._executor.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(done))


async def _gather(context: FetchContext, begun: Begun, plan: Plan, force: bool, tell: Tell, run: OneThread) -> Gathered:
    """Read every item and put what is new into the cache, where it is held but not yet found."""
    format_ = Format.of(plan.source)
    gathered = Gathered()
    await run(context.store.sweep)
    items = read_items(plan.reader, context.store, format_, plan.known, plan.limits, force=force)
    while (item := await run(lambda: next(items, None))) is not None:
        if isinstance(item, NewEntry):
            gathered.entries.append(item)
            continue
        await _publish(context, begun, item, run)
        gathered.entries.append(item.entry)
        gathered.bytes_fetched += item.entry.size_bytes
        gathered.downloads += 1
        gathered.examples += item.examples
        tell(f"Read {item.entry.key}: {item.entry.size_bytes:,} bytes.")
    return gathered


async def _publish(context: FetchContext, begun: Begun, item: Read, run: OneThread) -> None:
    try:
        async with transaction(context.sessions) as session:
            await acquire_lease(session, item.entry.content_hash, begun.fetch_id, CONTENT_LEASE_SECONDS)
        await run(lambda: context.store.publish(item.part))
    finally:
        await run(item.part.discard)


def _ending(plan: Plan, gathered: Gathered) -> Ending:
    is_list = plan.config.is_list()
    etag, last_modified = gathered.validators(is_list)
    return Ending(
        content_hash=gathered.content_hash(is_list),
        etag=etag,
        last_modified=last_modified,
        bytes_fetched=gathered.bytes_fetched,
        downloads=gathered.downloads,
        rows_parsed=gathered.rows,
        bad_rows=gathered.bad_rows,
        bad_row_examples=gathered.examples,
        config_version=plan.source.config_version,
    )
