"""One attempt of a fetch: claim the source, read it, publish its content to the cache, and record the result."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from math import inf
from typing import TypeVar

import structlog

from spine.auth.domains import EVERY_DOMAIN
from spine.cache.entries import NewEntry, content_hash_of, current_entries
from spine.cache.eviction import evict
from spine.cache.leases import acquire_lease, acquire_leases
from spine.cache.ownership import require_own_store
from spine.connections.resolved_connection import ResolvedConnection, resolve_connection
from spine.connections.service import find_connection
from spine.database import database_errors, reading, transaction
from spine.egress.fetch_failure import FetchFailure, FetchLost
from spine.egress.limits import Limits
from spine.errors import SpineError
from spine.schemas import ErrorCategory
from spine.sources.configs import SourceConfigs
from spine.sources.fetch_results import FetchResult
from spine.sources.fetch_state import OpenFetch, claim_source, finish_fetch, recorded_result, shared_result
from spine.sources.fetching.content import Format
from spine.sources.fetching.context import CONTENT_LEASE_SECONDS, FetchContext, as_fetch_failures
from spine.sources.fetching.reading import Download, OpenReader, Reading
from spine.sources.queries import find_source
from spine.sources.readers.base import Reader, Validators
from spine.sources.types.base import SourceConfig
from spine.sources.types.database import DatabaseConfig
from spine.tables.base import utc_now
from spine.tables.sources import Source

log = structlog.get_logger("spine.sources")

T = TypeVar("T")
# Takes sentences about the progress of a fetch, for people.
Report = Callable[[str], None]

SECONDS_BETWEEN_CLAIMS = 1.0


@dataclass(frozen=True)
class Plan:
    """What is to be read: the source with its configuration, and how it is read."""

    source: Source
    config: SourceConfig
    reading: Reading


async def run_fetch(context: FetchContext, fetch: OpenFetch, report: Report) -> FetchResult:
    """Fetch the source of a fetch that is RUNNING, and record the result when it succeeded.

    Raises `FetchFailure` (its result is not recorded yet), `Unavailable`, and `FetchLost`.
    """
    # An earlier attempt may have recorded it, although the answer of the database was lost.
    if (recorded := await recorded_result(context.sessions, fetch.fetch_id)) is not None:
        return recorded
    shared = await _wait_for_claim(context, fetch, report)
    if shared is not None:
        return _recorded(await finish_fetch(context.sessions, fetch.fetch_id, shared))
    plan = await _plan(context, fetch)
    entries, downloads = await _in_thread(lambda thread: _read(context, fetch, plan, report, thread), plan)
    lifetime = plan.config.cache_ttl_seconds
    expires_at = None if lifetime is None else utc_now() + timedelta(seconds=lifetime)
    result = _result(plan, entries, downloads)
    result = _recorded(await finish_fetch(context.sessions, fetch.fetch_id, result, entries, expires_at))
    await _evict(context, fetch, entries)
    return result


def _recorded(result: FetchResult | None) -> FetchResult:
    if result is None:
        raise FetchLost
    return result


async def _evict(context: FetchContext, fetch: OpenFetch, entries: Sequence[NewEntry]) -> None:
    if context.settings.cache_max_bytes is None:
        return
    # Runs that wait for this fetch have not read its content yet. It is kept even when it exceeds the limit.
    keep = [entry.content_hash for entry in entries]
    try:
        await evict(context.sessions, context.store, context.settings.cache_max_bytes, keep)
    except Exception as error:
        # The fetch has succeeded, and the hourly maintenance evicts too.
        log.warning("eviction_failed", fetch_id=fetch.fetch_id, exc_info=error)


async def record_failure(context: FetchContext, fetch: OpenFetch, error: Exception) -> None:
    """Record that a fetch has failed after its last attempt; does nothing when it has ended already."""
    failure = FetchResult(error=f"Internal error: {type(error).__name__}.", error_category=ErrorCategory.INTERNAL)
    if isinstance(error, FetchFailure):
        failure = FetchResult(error=error.sentence, error_category=error.category)
    elif isinstance(error, FetchLost):
        failure = FetchResult(error=str(error), error_category=ErrorCategory.ORCHESTRATION)
    elif isinstance(error, SpineError):
        failure = FetchResult(error=error.detail, error_category=ErrorCategory.INTERNAL)
    await finish_fetch(context.sessions, fetch.fetch_id, failure)


async def _wait_for_claim(context: FetchContext, fetch: OpenFetch, report: Report) -> FetchResult | None:
    """Wait until this fetch has the claim on its source; the result of the fetch it waited for when that one serves."""
    waited_for = ""
    while (other := await claim_source(context.sessions, fetch.source_id, fetch.fetch_id)) is not None:
        if other != waited_for:
            report(f"Fetch {other} is reading the source {fetch.source_name}; waiting until it ends.")
        waited_for = other
        await asyncio.sleep(SECONDS_BETWEEN_CLAIMS)
    if not waited_for or fetch.force:
        return None
    shared = await shared_result(context.sessions, waited_for, fetch.started_at)
    if shared is not None:
        report(f"Using the content that fetch {waited_for} has read.")
    return shared


async def _plan(context: FetchContext, fetch: OpenFetch) -> Plan:
    async with reading(context.sessions) as session:
        source = await find_source(session, EVERY_DOMAIN, fetch.source_id)
    await require_own_store(context.sessions, context.store)
    with as_fetch_failures():
        config = SourceConfigs(context.settings).of_source(source)
    deadline = inf if config.timeout_seconds is None else time.monotonic() + config.timeout_seconds
    limits = Limits(config.max_bytes, deadline, config.timeout_seconds)
    known = await _known_entries(context, fetch)
    source_reading = Reading(
        await _reader_of(context, source, config),
        context.store,
        Format.of_source(source),
        known,
        limits,
        memory_bytes=context.settings.read_memory_bytes,
        modules=(type(config).__module__, f"spine.sources.readers.{source.source_type}"),
        force=fetch.force,
        is_list=config.is_list(),
    )
    return Plan(source, config, source_reading)


async def _reader_of(context: FetchContext, source: Source, config: SourceConfig) -> OpenReader:
    """Opens the reader of a source, in the process that reads it."""
    if not isinstance(config, DatabaseConfig):
        return partial(config.open_reader, await context.secrets(config), context.settings)
    with as_fetch_failures(), database_errors():
        async with context.sessions() as session:
            connection = await find_connection(session, EVERY_DOMAIN, source.connection_id or config.connection)
    with as_fetch_failures():
        target = await resolve_connection(connection, context.prefect, context.settings)
    return partial(_query_reader, target, config.query)


def _query_reader(target: ResolvedConnection, query: str, limits: Limits) -> Reader:
    # The drivers of databases are imported only where they are used.
    from spine.sources.readers.database import open_query_reader

    return open_query_reader(target, query, limits)


async def _known_entries(context: FetchContext, fetch: OpenFetch) -> dict[str, NewEntry]:
    """The entries of a source whose content is in the cache, by key; this fetch has a lease on them from now on."""
    async with transaction(context.sessions) as session:
        entries = [NewEntry.from_row(row) for row in await current_entries(session, fetch.source_id)]
        hashes = [entry.content_hash for entry in entries]
        await acquire_leases(session, hashes, fetch.fetch_id, CONTENT_LEASE_SECONDS)

    def with_content() -> dict[str, NewEntry]:
        return {entry.key: entry for entry in entries if context.store.size(entry.content_hash) == entry.size_bytes}

    return await asyncio.to_thread(with_content)


async def _in_thread(work: Callable[["OneThread"], Awaitable[T]], plan: Plan) -> T:
    """Do the blocking parts of `work` in one thread, which has ended when this returns."""
    thread = OneThread()
    try:
        return await work(thread)
    finally:
        # Stops what the thread is doing at its next check of the time.
        plan.reading.limits.deadline = -inf
        await thread.close(plan.reading.close)


class OneThread:
    """One thread, without an event loop, that runs blocking calls one after the other."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="fetch")

    async def __call__(self, call: Callable[[], T]) -> T:
        """The result of a blocking call."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def close(self, last: Callable[[], None]) -> None:
        """Run the last call and end the thread, even while this task is being cancelled."""
        done = self._executor.submit(last)
        self._executor.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(done))


async def _read(
    context: FetchContext, fetch: OpenFetch, plan: Plan, report: Report, thread: OneThread
) -> tuple[list[NewEntry], list[Download]]:
    """Read every item, and publish the downloaded ones to the cache; the entries in order, and the downloads."""
    entries: list[NewEntry] = []
    downloads: list[Download] = []
    await thread(context.store.sweep)
    items = plan.reading.items()
    while (item := await thread(lambda: next(items, None))) is not None:
        if isinstance(item, NewEntry):
            entries.append(item)
            continue
        await _publish(context, fetch, item, thread)
        entries.append(item.entry)
        downloads.append(item)
        report(f"Read {item.entry.key}: {item.entry.size_bytes:,} bytes.")
    return entries, downloads


async def _publish(context: FetchContext, fetch: OpenFetch, download: Download, thread: OneThread) -> None:
    try:
        async with transaction(context.sessions) as session:
            await acquire_lease(session, download.entry.content_hash, fetch.fetch_id, CONTENT_LEASE_SECONDS)
        await thread(lambda: context.store.publish(download.file))
    finally:
        await thread(download.file.discard)


def _result(plan: Plan, entries: Sequence[NewEntry], downloads: Sequence[Download]) -> FetchResult:
    is_list = plan.config.is_list()
    # A source of several files has no validators as a whole.
    validators = Validators() if is_list else Validators.from_json(entries[0].validators)
    counts = [entry.rows for entry in entries]
    return FetchResult(
        content_hash=content_hash_of(entries, is_list=is_list),
        etag=validators.etag,
        last_modified=validators.last_modified,
        bytes_fetched=sum(download.entry.size_bytes for download in downloads),
        downloads=len(downloads),
        rows_parsed=None if None in counts else sum(count or 0 for count in counts),
        bad_rows=sum(entry.bad_rows for entry in entries),
        bad_row_examples=[example for download in downloads for example in download.bad_row_examples],
        config_version=plan.source.config_version,
    )
