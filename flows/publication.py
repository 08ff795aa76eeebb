"""Atomic publication of a partition's tables as Parquet files, to any file system that fsspec supports.

A partition is a directory such as ``finra.otc_transparency/tier=OTC/week_ending=2025-12-15``::

    <partition>/_current.json                          the pointer to the current capture, see `Manifest`
    <partition>/<capture_id>.<8 hex>/<table>.parquet   the files of one publication, never changed after writing

The pointer is replaced by one atomic write after all files are complete, so a reader that follows it sees the old
capture or the new one, never a mixture. Each publication has its own directory (the suffix), so two runs that publish
the same capture at the same time cannot write or delete each other's files.

Errors: `PublicationError`, and the file system's own errors if it is out of reach or denies access.
"""

import contextlib
import io
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import fsspec  # type: ignore[import-untyped]
import polars as pl
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
from pydantic import BaseModel, ValidationError

POINTER = "_current.json"
ORPHAN_SECONDS = 3600
"""Age after which files of a capture that never became current are treated as left over from a crash."""
READ_ATTEMPTS = 100


class PublicationError(RuntimeError):
    """The warehouse cannot be used, or a partition is missing or damaged."""


class TableFile(BaseModel):
    """One table of a capture: ``file`` is its name in the capture's directory, ``size`` is in bytes."""

    file: str
    rows: int
    size: int


class Manifest(BaseModel):
    """The content of ``_current.json``: the published tables of a partition, their capture, and the time (UTC)."""

    capture_id: str
    folder: str
    tables: dict[str, TableFile]
    details: dict[str, Any]
    published_at: datetime


class Partition(BaseModel, arbitrary_types_allowed=True):
    """The tables of a partition; all belong to the capture in the manifest."""

    manifest: Manifest
    tables: dict[str, pl.DataFrame]


def publish(
    warehouse: str,
    partition: str,
    capture_id: str,
    files: Mapping[str, Path],
    details: Mapping[str, Any] | None = None,
) -> Manifest:
    """Make local Parquet ``files`` (by table name) the content of ``partition`` and return its manifest.

    ``details`` (JSON) is stored in the manifest. A capture that is already current and complete is not changed: its
    manifest is returned, and ``files`` need not exist. Otherwise the capture that this one replaces is removed.
    """
    published = already_published(warehouse, partition, capture_id)
    if published is not None:
        return published
    fs, root = _open(warehouse, partition)
    folder = f"{capture_id}.{uuid4().hex[:8]}"
    manifest = Manifest(
        capture_id=capture_id,
        folder=folder,
        tables={name: _upload(fs, file, f"{root}/{folder}/{name}.parquet") for name, file in files.items()},
        details=dict(details or {}),
        published_at=datetime.now(UTC),
    )
    replaced = _read_pointer(fs, root)
    _replace_file(fs, f"{root}/{POINTER}", manifest.model_dump_json(indent=2).encode())
    _remove_old(fs, root, current=folder, replaced=replaced.folder if replaced else None)
    return manifest


def current(warehouse: str, partition: str) -> Manifest | None:
    """The manifest of what is published in ``partition``; None if nothing is."""
    fs, root = _open(warehouse, partition)
    return _read_pointer(fs, root)


def already_published(warehouse: str, partition: str, capture_id: str) -> Manifest | None:
    """The manifest of ``partition`` if ``capture_id`` is current in it and all its files are complete, else None."""
    fs, root = _open(warehouse, partition)
    manifest = _read_pointer(fs, root)
    if manifest is None or manifest.capture_id != capture_id:
        return None
    complete = all(_size(fs, f"{root}/{manifest.folder}/{one.file}") == one.size for one in manifest.tables.values())
    return manifest if complete else None


def read_partition(warehouse: str, partition: str) -> Partition:
    """Read all tables of one capture of ``partition`` into memory.

    If the capture is replaced while it is being read, reading starts again with the new one. Raises
    `PublicationError` if nothing is published, or if files of the current capture are missing or damaged.
    """
    fs, root = _open(warehouse, partition)
    for _ in range(READ_ATTEMPTS):
        manifest = _read_pointer(fs, root)
        if manifest is None:
            raise PublicationError(f"Nothing is published in {without_credentials(warehouse)}/{partition}.")
        try:
            tables = {
                name: pl.read_parquet(io.BytesIO(fs.cat_file(f"{root}/{manifest.folder}/{table.file}")))
                for name, table in manifest.tables.items()
            }
        except (FileNotFoundError, pl.exceptions.ComputeError) as error:
            after = _read_pointer(fs, root)
            if after is None or after.folder == manifest.folder:
                raise PublicationError(
                    f"Capture {manifest.capture_id} in {without_credentials(warehouse)}/{partition} is damaged: {error}"
                ) from error
        else:
            return Partition(manifest=manifest, tables=tables)
    raise PublicationError(f"{partition} was replaced {READ_ATTEMPTS} times while it was being read.")


def location(warehouse: str, partition: str) -> str:
    """The URL of ``partition`` for people to open, without credentials."""
    fs, root = _open(warehouse, partition)
    # The equals signs of a hive partition may stand in a URL as they are; `as_uri` would make them unreadable.
    url = f"file://{quote(root, safe='/=:')}" if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(root)
    return without_credentials(url)


def without_credentials(url: str) -> str:
    """``url`` without the user, password and query that some file systems accept in it."""
    return re.sub(r"://[^/]*@", "://", url).partition("?")[0] if "://" in url else url


def _open(warehouse: str, partition: str) -> tuple[Any, str]:
    # Listings are not cached: a long-lived worker would otherwise see captures that another run has removed.
    try:
        fs, root = fsspec.url_to_fs(warehouse, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise PublicationError(f"The warehouse {without_credentials(warehouse)} cannot be opened: {error}") from error
    return fs, f"{root.rstrip('/')}/{partition}"


def _upload(fs: Any, local: Path, remote: str) -> TableFile:
    fs.makedirs(fs._parent(remote), exist_ok=True)
    fs.put_file(str(local), remote)
    size = local.stat().st_size
    if _size(fs, remote) != size:
        raise PublicationError(f"{remote} is not complete after the upload; the published partition was not changed.")
    rows = pl.scan_parquet(local).select(pl.len()).collect().item()
    return TableFile(file=remote.rpartition("/")[2], rows=rows, size=size)


def _size(fs: Any, path: str) -> int | None:
    try:
        return int(fs.info(path)["size"])
    except FileNotFoundError:
        return None


def _read_pointer(fs: Any, root: str) -> Manifest | None:
    try:
        content = fs.cat_file(f"{root}/{POINTER}")
    except FileNotFoundError:
        return None
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise PublicationError(
            f"{root}/{POINTER} is not a valid manifest: {error.error_count()} fields are invalid."
        ) from error


def _replace_file(fs: Any, path: str, content: bytes) -> None:
    # A put to an object store is atomic. A local file would be visible while it is being written, so it is written to
    # the same directory under another name and renamed, which is atomic on POSIX.
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, content)
        return
    beside = f"{path}.{uuid4().hex[:8]}.tmp"
    fs.pipe_file(beside, content)
    fs.mv(beside, path)


def _remove_old(fs: Any, root: str, current: str, replaced: str | None) -> None:
    # Other publishers may remove the same files at the same time; the next publication removes what is left over.
    if replaced is not None:
        with contextlib.suppress(FileNotFoundError):
            fs.rm(f"{root}/{replaced}", recursive=True)
    with contextlib.suppress(FileNotFoundError):
        for path in fs.ls(root, detail=False):
            kept = path.rstrip("/").rpartition("/")[2] in (current, POINTER)
            if not kept and _age_seconds(fs, path) > ORPHAN_SECONDS:
                fs.rm(path, recursive=True)


def _age_seconds(fs: Any, path: str) -> float:
    # The age of a directory is that of its newest file; an empty directory is being created right now.
    times = [fs.modified(file).timestamp() for file in fs.find(path)]
    return time.time() - max(times, default=time.time())
