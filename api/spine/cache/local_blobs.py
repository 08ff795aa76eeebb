"""Blobs in a local folder: `blobs/ab/abcdef...`, published by renaming."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from spine.cache.failures import BlobMissing, local_errors
from spine.private_files import make_private_file, make_private_folder

# A file beside the folder of the blobs: see `spine.cache.ownership`.
MARKER = "spine-cache"


class LocalBlobs:
    """The blobs below one folder, on the file system of the staging files. Raises `FetchFailure`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / "blobs"

    def local_path(self, content_hash: str) -> Path | None:
        """The path of a blob, whether or not it exists."""
        return self._blobs / content_hash[:2] / content_hash

    def publish(self, staging_path: Path, content_hash: str, size_bytes: int) -> None:
        """Turn a staging file, already flushed to the disk, into a blob; readers see all of it or nothing."""
        folder = self._blobs / content_hash[:2]
        with local_errors():
            is_new = not folder.is_dir()
            make_private_folder(folder)
            if self.size(content_hash) == size_bytes:
                staging_path.unlink()
            else:
                os.replace(staging_path, folder / content_hash)
            # Also for an existing blob: its writer may not have got this far.
            _sync_folder(folder)
            if is_new:
                _sync_folder(self._blobs)

    def open(self, content_hash: str) -> BinaryIO:
        """The bytes of a blob, as a seekable file. Raises `BlobMissing`."""
        path = self._blobs / content_hash[:2] / content_hash
        with local_errors():
            try:
                return path.open("rb")
            except FileNotFoundError:
                raise BlobMissing(content_hash) from None

    def size(self, content_hash: str) -> int | None:
        """The size of a blob in bytes; None if it does not exist."""
        with local_errors():
            return _size_of(self._blobs / content_hash[:2] / content_hash)

    def delete(self, content_hash: str) -> None:
        """Delete a blob, if it exists. Readers that have it open can read on."""
        with local_errors():
            (self._blobs / content_hash[:2] / content_hash).unlink(missing_ok=True)

    def list(self) -> Iterator[tuple[str, int]]:
        """The name and size in bytes of every file."""
        with local_errors():
            names = sorted(self._blobs.iterdir()) if self._blobs.is_dir() else []
            # A person may have put a file beside the folders.
            folders = [name for name in names if name.is_dir()]
        for folder in folders:
            with local_errors():
                found = [(name, _size_of(folder / name)) for name in os.listdir(folder)]
            yield from ((name, size) for name, size in found if size is not None)

    def sweep(self) -> None:
        """Nothing to do: there are no uploads, only renames."""

    def read_marker(self) -> str | None:
        """What the marker contains; None if there is none."""
        with local_errors():
            try:
                return (self._root / MARKER).read_text(encoding="utf-8", errors="replace").strip()
            except FileNotFoundError:
                return None

    def write_marker(self, text: str) -> None:
        """Replace the marker, durably."""
        with local_errors():
            make_private_folder(self._root)
            new = self._root / f".{MARKER}-{uuid4().hex[:8]}"
            make_private_file(new)
            with new.open("w", encoding="utf-8") as file:
                file.write(f"{text}\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._root / MARKER)
            _sync_folder(self._root)


def _size_of(path: Path) -> int | None:
    """The size of a file in bytes; None if it does not exist, or no longer."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
