"""Registered sources for workflows: `read_source` gives a run the current content, fetched when it is stale."""

import asyncio
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pyarrow as pa
from prefect import get_run_logger, runtime

from spine.cache.entries import NewEntry
from spine.cache.leases import LEASE_SECONDS, ReaderLease
from spine.cache.store import BlobStore
from spine.egress.fetch_failure import FetchFailure
from spine.flows import staging
from spine.flows.fetch_source import fetch_source
from spine.schemas import ErrorCategory
from spine.sources.fetching.content import ContentFile, Format
from spine.sources.fetching.context import FetchContext, open_fetch_context
from spine.sources.snapshot import Snapshot, count_hit, find_fresh_snapshot, read_snapshot, record_use

# In bytes, of what file systems take.
_LONGEST_NAME = 255
_LONGEST_ENDING = 32


@dataclass(frozen=True)
class SourceContent:
    """The content of a source as a run works on it.

    ``files`` are read-only, in the order of the source, and stay until the run removes its staged files, or else until
    it has read no source for a week.
    ``capture_id`` names the content, SHA-256 in hex; ``fetch_id`` is the fetch that brought or confirmed it.
    """

    source: str
    fetch_id: str
    capture_id: str
    files: tuple[ContentFile, ...]
    format: Format

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(file.path for file in self.files)

    @property
    def path(self) -> Path:
        """The file. Raises `ValueError` for a source of several."""
        if len(self.paths) != 1:
            raise ValueError(f"The source {self.source} has {len(self.paths)} files; use `paths`.")
        return self.paths[0]

    def to_arrow(self) -> pa.Table:
        """The good rows of all files, parsed as the fetch has parsed them. Raises `FetchFailure`."""
        return self.format.to_arrow(self.files)


def read_source(source: str, *, max_age: timedelta | None = None) -> SourceContent:
    """The current content of a registered source, by id or name, for the run that asks; to be called in a flow or task.

    It is fetched first, in a run of `spine.fetch_source` below this one, when it is older than `max_age`, or without
    that when the source's `cache_ttl_seconds` are over; a source without both is asked each time whether it has
    changed. Which fetch this run used is recorded.

    Raises `NotFound` for an unknown source, `Conflict` for a stale one that is disabled, and `FetchFailure`.
    """
    # A loop of its own: the caller may be in one.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(copy_context().run, asyncio.run, aread_source(source, max_age=max_age)).result()


async def aread_source(source: str, *, max_age: timedelta | None = None) -> SourceContent:
    """The same as `read_source`, for flows and tasks that are coroutines."""
    run_id = UUID(runtime.flow_run.id)
    holder = f"{run_id.hex}-{uuid4().hex[:8]}"
    async with open_fetch_context() as context:
        # Copying from a cache that is far away takes its time.
        lease = ReaderLease(context.sessions, holder)
        try:
            current = await _current(context, source, holder, max_age)
            files = await asyncio.to_thread(_staged, context, current, run_id)
            await record_use(context.sessions, run_id, current)
        finally:
            await lease.end()
    get_run_logger().info("Using fetch %s of the source %s.", current.fetch_id, current.source.name)
    return SourceContent(
        source=current.source.name,
        fetch_id=current.fetch_id,
        capture_id=current.capture_id,
        files=files,
        format=Format.of(current.source),
    )


async def _current(context: FetchContext, source: str, holder: str, max_age: timedelta | None) -> Snapshot:
    """The content of a source, which is there and held, fetched when it is stale."""
    current = await find_fresh_snapshot(context.sessions, source, holder=holder, seconds=LEASE_SECONDS, max_age=max_age)
    if current is not None and await _is_there(context, current):
        await count_hit(context.sessions)
        return current
    await fetch_source(source)
    current = await read_snapshot(context.sessions, source, holder=holder, seconds=LEASE_SECONDS)
    if current is None or not await _is_there(context, current):
        raise _not_kept(source, context)
    return current


def _not_kept(source: str, context: FetchContext) -> FetchFailure:
    sentence = f"The content of the source {source} was removed from the cache before this run could read it."
    if context.settings.cache_max_bytes is not None:
        sentence += f" SPINE_CACHE_MAX_BYTES, {context.settings.cache_max_bytes:,}, is less than runs need at once."
    return FetchFailure(ErrorCategory.STORAGE, sentence)


async def _is_there(context: FetchContext, current: Snapshot) -> bool:
    def check() -> bool:
        return all(context.store.size(entry.content_hash) == entry.size_bytes for entry in current.entries)

    return await asyncio.to_thread(check)


def _staged(context: FetchContext, current: Snapshot, run_id: UUID) -> tuple[ContentFile, ...]:
    """The content as files of this run, which nobody else deletes, nor another call in the same run."""
    staged = context.settings.home.absolute() / "staging"
    staging.keep(staged / str(run_id))
    staging.remove_old(staged)
    folder = staging.fresh(staged / str(run_id) / "sources" / current.source.id / uuid4().hex[:8])
    return tuple(_stage(context.store, entry, folder / f"{number:05}") for number, entry in enumerate(current.entries))


def _stage(store: BlobStore, entry: NewEntry, folder: Path) -> ContentFile:
    folder.mkdir()
    path = folder / _file_name(entry.name)
    local = store.local_path(entry.content_hash)
    if local is None:
        with store.open(entry.content_hash) as blob, path.open("wb") as file:
            shutil.copyfileobj(blob, file, 1 << 20)
    elif not _linked(local, path):
        shutil.copyfile(local, path)
    path.chmod(0o400)
    return ContentFile(path, entry.name, entry.encoding)


def _file_name(name: str) -> str:
    """What a source calls its content, as a file may be called: the name may come from far away."""
    last = Path(name).name
    if last in ("", ".."):
        return "content"
    ending = "".join(Path(last).suffixes[-2:])
    if len(os.fsencode(ending)) > _LONGEST_ENDING:
        ending = ""
    stem = os.fsencode(last.removesuffix(ending))
    return stem[: _LONGEST_NAME - len(os.fsencode(ending))].decode(errors="ignore") + ending


def _linked(blob: Path, path: Path) -> bool:
    """Give a blob another name, where its mode keeps whoever has that from writing to the blob."""
    if os.geteuid() == 0:
        return False
    try:
        os.link(blob, path)
    except OSError:
        return False
    return True
