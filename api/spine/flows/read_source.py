"""`read_source` gives a flow run the current content of a registered source, and fetches it first when it is stale."""

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

# In bytes: what file systems accept.
_LONGEST_NAME = 255
_LONGEST_ENDING = 32


@dataclass(frozen=True)
class SourceContent:
    """The content of a source, as files of one flow run.

    ``files`` are read-only and in the order of the source. They exist until the run removes its staged files, or until
    it has read no source for a week. ``capture_id`` identifies the content (SHA-256 in hex); ``fetch_id`` is the fetch
    that brought or confirmed it.
    """

    source: str
    fetch_id: str
    capture_id: str
    files: tuple[ContentFile, ...]
    format: Format

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths of the files."""
        return tuple(file.path for file in self.files)

    @property
    def path(self) -> Path:
        """The path of the only file. Raises `ValueError` for a source with several files."""
        if len(self.paths) != 1:
            raise ValueError(f"The source {self.source} has {len(self.paths)} files; use `paths`.")
        return self.paths[0]

    def to_arrow(self) -> pa.Table:
        """The valid rows of all files, parsed as the fetch parsed them. Raises `FetchFailure`."""
        return self.format.to_arrow(self.files)


def read_source(source: str, *, max_age: timedelta | None = None) -> SourceContent:
    """The current content of a registered source, by id or name. Call it in a flow or a task.

    Stale content is fetched first, in a child run of `spine.fetch_source`. Content is stale when it is older than
    `max_age` or, without `max_age`, when the source's `cache_ttl_seconds` are over. A source without both is checked
    for changes at each call. Spine records which fetch this run used.

    Raises `NotFound` for an unknown source, `Conflict` for a stale one that is disabled, and `FetchFailure`.
    """
    # In another thread, because the thread of the caller may already run an event loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(copy_context().run, asyncio.run, aread_source(source, max_age=max_age)).result()


async def aread_source(source: str, *, max_age: timedelta | None = None) -> SourceContent:
    """`read_source` for asynchronous flows and tasks."""
    run_id = UUID(runtime.flow_run.id)
    holder = f"{run_id.hex}-{uuid4().hex[:8]}"
    async with open_fetch_context() as context:
        # Copying from a remote cache can take longer than a lease.
        lease = ReaderLease(context.sessions, holder)
        try:
            snapshot = await _fresh_snapshot(context, source, holder, max_age)
            files = await asyncio.to_thread(_staged, context, snapshot, run_id)
            await record_use(context.sessions, run_id, snapshot)
        finally:
            await lease.end()
    get_run_logger().info("Using fetch %s of the source %s.", snapshot.fetch_id, snapshot.source.name)
    return SourceContent(
        source=snapshot.source.name,
        fetch_id=snapshot.fetch_id,
        capture_id=snapshot.capture_id,
        files=files,
        format=Format.of_source(snapshot.source),
    )


async def _fresh_snapshot(context: FetchContext, source: str, holder: str, max_age: timedelta | None) -> Snapshot:
    """The content of a source, leased and complete in the cache; fetched first when it is stale."""
    sessions = context.sessions
    snapshot = await find_fresh_snapshot(sessions, source, holder=holder, seconds=LEASE_SECONDS, max_age=max_age)
    if snapshot is not None and await _is_in_cache(context, snapshot):
        await count_hit(sessions)
        return snapshot
    await fetch_source(source)
    snapshot = await read_snapshot(sessions, source, holder=holder, seconds=LEASE_SECONDS)
    if snapshot is None or not await _is_in_cache(context, snapshot):
        raise _evicted(source, context)
    return snapshot


def _evicted(source: str, context: FetchContext) -> FetchFailure:
    sentence = f"The content of the source {source} was removed from the cache before this run could read it."
    if context.settings.cache_max_bytes is not None:
        sentence += f" SPINE_CACHE_MAX_BYTES ({context.settings.cache_max_bytes:,}) is too small for concurrent runs."
    return FetchFailure(ErrorCategory.STORAGE, sentence)


async def _is_in_cache(context: FetchContext, snapshot: Snapshot) -> bool:
    def check() -> bool:
        return all(context.store.size(entry.content_hash) == entry.size_bytes for entry in snapshot.entries)

    return await asyncio.to_thread(check)


def _staged(context: FetchContext, snapshot: Snapshot, run_id: UUID) -> tuple[ContentFile, ...]:
    """The content as files of this call, which no other run or call deletes."""
    staged = staging.directory_of(context.settings.home)
    staging.keep(staged / str(run_id))
    staging.remove_old(staged)
    folder = staging.fresh(staged / str(run_id) / "sources" / snapshot.source.id / uuid4().hex[:8])
    return tuple(_stage(context.store, entry, folder / f"{number:05}") for number, entry in enumerate(snapshot.entries))


def _stage(store: BlobStore, entry: NewEntry, folder: Path) -> ContentFile:
    folder.mkdir(mode=0o700)
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
    """A safe file name from the name that a source gives its content, which may be hostile."""
    last = Path(name).name
    if last in ("", ".."):
        return "content"
    ending = "".join(Path(last).suffixes[-2:])
    if len(os.fsencode(ending)) > _LONGEST_ENDING:
        ending = ""
    stem = os.fsencode(last.removesuffix(ending))
    return stem[: _LONGEST_NAME - len(os.fsencode(ending))].decode(errors="ignore") + ending


def _linked(blob: Path, path: Path) -> bool:
    """Hard-link a blob; False where that is not possible.

    Not as root, whom the file mode would not stop from writing to the blob.
    """
    if os.geteuid() == 0:
        return False
    try:
        os.link(blob, path)
    except OSError:
        return False
    return True
