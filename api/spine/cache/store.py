"""The blob store: content under its SHA-256, in a local folder or in any storage that fsspec can write."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from spine.cache.failures import BlobMissing
from spine.cache.local_blobs import LocalBlobs
from spine.cache.remote_blobs import RemoteBlobs
from spine.cache.staging_files import StagedContent, StagingFile, StagingFolder
from spine.settings import Settings

__all__ = ["BlobMissing", "BlobStore", "StagedContent", "StagingFile"]


class Blobs(Protocol):
    """A storage for blobs; each operation raises `FetchFailure` of category STORAGE."""

    def local_path(self, content_hash: str) -> Path | None:
        """The path of a blob on this machine, if the storage is a local folder."""

    def publish(self, staging_path: Path, content_hash: str, size_bytes: int) -> None:
        """Turn a staging file into a blob, unless the blob exists already, and remove the staging file."""

    def open(self, content_hash: str) -> BinaryIO:
        """The bytes of a blob. Raises `BlobMissing`."""
        ...

    def size(self, content_hash: str) -> int | None:
        """The size of a blob in bytes; None if it does not exist."""

    def delete(self, content_hash: str) -> None:
        """Delete a blob, if it exists."""

    def list(self) -> Iterator[tuple[str, int]]:
        """The name and size in bytes of every blob."""
        ...

    def sweep(self) -> None:
        """Delete abandoned uploads."""

    def read_marker(self) -> str | None:
        """What the marker of the store contains; None if it has none."""

    def write_marker(self, text: str) -> None:
        """Replace the marker of the store, completely or not at all."""


class BlobStore:
    """All operations of the cache on bytes; each one blocks, and raises `FetchFailure` of category STORAGE.

    Before content is published its lease must be committed (`spine.cache.leases.acquire_lease`); otherwise another
    process may delete the content as garbage.
    """

    def __init__(self, staging: StagingFolder, blobs: Blobs, *, is_in_home: bool = False) -> None:
        self._staging = staging
        self._blobs = blobs
        # Whether it is the folder in Spine's home, because no other is set.
        self.is_in_home = is_in_home

    @property
    def setting(self) -> str:
        """The setting that selects this store, as a part of a sentence."""
        return "The folder cache in SPINE_HOME (SPINE_CACHE_URL is not set)" if self.is_in_home else "SPINE_CACHE_URL"

    @classmethod
    def from_settings(cls, settings: Settings) -> "BlobStore":
        """The store that the settings describe. Nothing is connected or created yet."""
        home = settings.home.absolute()
        url = settings.cache_url or str(home / "cache")
        root = _local_root(url)
        if root is None:
            return cls(StagingFolder(home / "cache-parts"), RemoteBlobs(url))
        return cls(StagingFolder(root / "parts"), LocalBlobs(root), is_in_home=not settings.cache_url)

    def stage(self) -> StagingFile:
        """A staging file for new content; the caller ends it with `discard`, also after `publish`."""
        return self._staging.new_file()

    def publish(self, file: StagingFile) -> None:
        """Turn a staging file into a blob, completely or not at all; its path is gone afterwards."""
        staged = file.finish()
        self._blobs.publish(file.path, staged.content_hash, staged.size_bytes)

    def open(self, content_hash: str) -> BinaryIO:
        """The bytes of a blob, as a seekable file. Raises `BlobMissing`."""
        return self._blobs.open(content_hash)

    def local_path(self, content_hash: str) -> Path | None:
        """The file of a blob if the store is a local folder, else None."""
        return self._blobs.local_path(content_hash)

    def size(self, content_hash: str) -> int | None:
        """The size of a blob in bytes; None if it does not exist."""
        return self._blobs.size(content_hash)

    def delete(self, content_hash: str) -> None:
        """Delete a blob, if it exists."""
        self._blobs.delete(content_hash)

    def list(self) -> Iterator[tuple[str, int]]:
        """The hash and size in bytes of every blob; other files are left out."""
        return ((name, size) for name, size in self._blobs.list() if len(name) == 64 and set(name) <= _HEX)

    def sweep(self) -> int:
        """Delete the unfinished files of dead processes and return the number of staging files."""
        self._blobs.sweep()
        return self._staging.sweep()

    def read_marker(self) -> str | None:
        """What the marker of the store contains; None if it has none: see `spine.cache.ownership`."""
        return self._blobs.read_marker()

    def write_marker(self, text: str) -> None:
        """Replace the marker of the store."""
        self._blobs.write_marker(text)


_HEX = frozenset("0123456789abcdef")


def _local_root(url: str) -> Path | None:
    """The local folder of a URL; None for any other storage."""
    protocol, separator, path = url.partition("://")
    if separator and protocol not in ("file", "local"):
        return None
    return Path(path if separator else url).absolute()
