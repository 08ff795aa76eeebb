"""Blobs in a local folder: `blobs/ab/abcdef...`, published by renaming."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from spine.cache.failures import BlobMissing, local_errors
from spine.cache.staging_files import private_folder


class LocalBlobs:
    """The blobs below one folder, on the file system of the parts. Raises `FetchFailure`."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"

    def local_path(self, content_hash: str) -> Path | None:
        """Where a blob is, or would be."""
        return self._blobs / content_hash[:2] / content_hash

    def publish(self, part: Path, content_hash: str, size_bytes: int) -> None:
        """Make a part, whose bytes are on the disk, a blob; nobody ever sees less than all of it."""
        folder = self._blobs / content_hash[:2]
        with local_errors():
            is_new = not folder.is_dir()
            private_folder(folder)
            if self.size(content_hash) == size_bytes:
                part.unlink()
            else:
                os.replace(part, folder / content_hash)
            # Also for a blob that was there: who wrote it may not have come this far.
            _to_disk(folder)
            if is_new:
                _to_disk(self._blobs)

    def open(self, content_hash: str) -> BinaryIO:
        """The bytes of a blob, to read and seek in. Raises `BlobMissing`."""
        path = self._blobs / content_hash[:2] / content_hash
        with local_errors():
            try:
                return path.open("rb")
            except FileNotFoundError:
                raise BlobMissing(content_hash) from None

    def size(self, content_hash: str) -> int | None:
        """How many bytes a blob has; None when it is not there."""
        with local_errors():
            return _size_of(self._blobs / content_hash[:2] / content_hash)

    def delete(self, content_hash: str) -> None:
        """Remove a blob; it need not be there. Who has it open goes on reading."""
        with local_errors():
            (self._blobs / content_hash[:2] / content_hash).unlink(missing_ok=True)

    def list(self) -> Iterator[tuple[str, int]]:
        """The name and size in bytes of everything that is there."""
        with local_errors():
            names = sorted(self._blobs.iterdir()) if self._blobs.is_dir() else []
            # A person may have put a file beside them.
            folders = [name for name in names if name.is_dir()]
        for folder in folders:
            with local_errors():
                found = [(name, _size_of(folder / name)) for name in os.listdir(folder)]
            yield from ((name, size) for name, size in found if size is not None)

    def sweep(self) -> None:
        """Nothing to do: a part is renamed or not."""


def _size_of(path: Path) -> int | None:
    """How many bytes a file has; None when it is not there, or no longer."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _to_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
