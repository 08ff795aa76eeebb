"""The store of blobs: content under its SHA-256, in a local folder or wherever fsspec can write."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from spine.cache.failures import BlobMissing
from spine.cache.local_blobs import LocalBlobs
from spine.cache.remote_blobs import RemoteBlobs
from spine.cache.staging_files import Part, PartFolder, Written
from spine.settings import Settings

__all__ = ["BlobMissing", "BlobStore", "Part", "Written"]


class Blobs(Protocol):
    """A place for blobs; each operation raises `FetchFailure` of category STORAGE."""

    def local_path(self, content_hash: str) -> Path | None:
        """Where a blob is on this machine, for a place that is a local folder."""

    def publish(self, part: Path, content_hash: str, size_bytes: int) -> None:
        """Make a part a blob, unless it is there already, and remove the part."""

    def open(self, content_hash: str) -> BinaryIO:
        """The bytes of a blob. Raises `BlobMissing`."""
        ...

    def size(self, content_hash: str) -> int | None:
        """How many bytes a blob has; None when it is not there."""

    def delete(self, content_hash: str) -> None:
        """Remove a blob, which need not be there."""

    def list(self) -> Iterator[tuple[str, int]]:
        """The name and size in bytes of every blob."""
        ...

    def sweep(self) -> None:
        """Remove what others left unfinished."""


class BlobStore:
    """All that the cache does with bytes; every operation blocks, and raises `FetchFailure` of category STORAGE.

    Who publishes has first written down, in a transaction that is committed, that it holds the content
    (`spine.cache.service.hold`); else somebody who tidies up may take it away again.
    """

    def __init__(self, parts: PartFolder, blobs: Blobs) -> None:
        self._parts = parts
        self._blobs = blobs

    @classmethod
    def of(cls, settings: Settings) -> "BlobStore":
        """The store that the settings name. Nothing is connected or made yet."""
        home = settings.home.absolute()
        url = settings.cache_url or str(home / "cache")
        root = _local_root(url)
        if root is None:
            return cls(PartFolder(home / "cache-parts"), RemoteBlobs(url))
        return cls(PartFolder(root / "parts"), LocalBlobs(root))

    def begin(self) -> Part:
        """A part for new content; whoever takes it ends it with `discard`, also after `publish`."""
        return self._parts.begin()

    def publish(self, part: Part) -> None:
        """Make a part a blob, whole or not at all; its file is gone afterwards."""
        written = part.finish()
        self._blobs.publish(part.path, written.content_hash, written.size_bytes)

    def open(self, content_hash: str) -> BinaryIO:
        """The bytes of a blob, to read and to seek in. Raises `BlobMissing`."""
        return self._blobs.open(content_hash)

    def local_path(self, content_hash: str) -> Path | None:
        """The file of a blob where the store is a local folder, else None."""
        return self._blobs.local_path(content_hash)

    def size(self, content_hash: str) -> int | None:
        """How many bytes a blob has; None when it is not there."""
        return self._blobs.size(content_hash)

    def delete(self, content_hash: str) -> None:
        """Remove a blob, which need not be there."""
        self._blobs.delete(content_hash)

    def list(self) -> Iterator[tuple[str, int]]:
        """The hash and size in bytes of every blob; files that are no blobs are left out."""
        return ((name, size) for name, size in self._blobs.list() if len(name) == 64 and set(name) <= _HEX)

    def sweep(self) -> int:
        """Remove what processes that are gone left unfinished; how many parts they were."""
        self._blobs.sweep()
        return self._parts.sweep()


_HEX = frozenset("0123456789abcdef")


def _local_root(url: str) -> Path | None:
    """The folder that a URL names; None where it is no folder of this machine."""
    protocol, separator, path = url.partition("://")
    if separator and protocol not in ("file", "local"):
        return None
    return Path(path if separator else url).absolute()
