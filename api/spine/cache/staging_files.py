"""Staging files: content on its way into the cache, hashed while it is written.

A staging file belongs to a living process, which holds a lock (`flock`) on it. The kernel releases the lock when the
process ends, however it ends, so a staging file without a lock was left by a dead process.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from threading import Semaphore, Thread
from uuid import uuid4

from spine.cache.failures import local_errors
from spine.private_files import make_private_folder

# Chunks that are written but not hashed yet; more would only use memory.
_MOST_CHUNKS_AHEAD = 4


@dataclass(frozen=True)
class StagedContent:
    """The SHA-256 (hex) and the size of a finished staging file."""

    content_hash: str
    size_bytes: int


class StagingFile:
    """A file that one thread writes once, from front to back; others may read it while it exists.

    Raises `FetchFailure` when the disk refuses a write. Always call `discard` at the end, also after publishing.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._size = 0
        self._hasher = _Hasher()
        self._staged: StagedContent | None = None

    @classmethod
    def of_another_process(cls, path: Path) -> "StagingFile":
        """A staging file to write for the process that holds its lock; end it with `close`. Raises `FetchFailure`."""
        with local_errors():
            return cls(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def written_elsewhere(self, staged: StagedContent) -> None:
        """Take over the result of the process that has written this file."""
        self._staged = staged

    def write(self, chunk: bytes) -> None:
        """Append a chunk, which must not change afterwards."""
        self._hasher.update(chunk)
        rest = memoryview(chunk)
        with local_errors():
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        self._size += len(chunk)

    def finish(self) -> StagedContent:
        """Flush everything to the disk and return the hash and size; safe to repeat."""
        if self._staged is None:
            with local_errors():
                os.fsync(self._descriptor)
            self._staged = StagedContent(self._hasher.finish(), self._size)
        return self._staged

    def discard(self) -> None:
        """Close the file, and delete it unless it was published; safe to repeat."""
        if self._descriptor < 0:
            return
        # While the lock is held no other process can have taken the name.
        with suppress(OSError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Close the file without deleting it; safe to repeat."""
        if self._descriptor >= 0:
            self._hasher.finish()
            os.close(self._descriptor)
            self._descriptor = -1


class _Hasher:
    """Hashes in a thread of its own, a few chunks behind the writer; hashing releases the GIL."""

    def __init__(self) -> None:
        self._hash = sha256()
        self._chunks: SimpleQueue[bytes | None] = SimpleQueue()
        self._room = Semaphore(_MOST_CHUNKS_AHEAD)
        self._thread: Thread | None = None

    def update(self, chunk: bytes) -> None:
        """Queue a chunk; waits while the queue is full."""
        if self._thread is None:
            self._thread = Thread(target=self._work, name="hash", daemon=True)
            self._thread.start()
        self._room.acquire()
        self._chunks.put(chunk)

    def finish(self) -> str:
        """The hash of all chunks; the thread ends."""
        if self._thread is not None:
            self._chunks.put(None)
            self._thread.join()
            self._thread = None
        return self._hash.hexdigest()

    def _work(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            self._hash.update(chunk)
            self._room.release()


class StagingFolder:
    """The folder of staging files; several processes may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def new_file(self) -> StagingFile:
        """A new, empty staging file. Raises `FetchFailure`."""
        with local_errors():
            make_private_folder(self.path)
            while True:
                path = self.path / f"{uuid4().hex}.part"
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # Another process may have swept the file before it was locked.
                if os.fstat(descriptor).st_nlink:
                    return StagingFile(path, descriptor)
                os.close(descriptor)

    def sweep(self) -> int:
        """Delete the staging files of dead processes and return their number. Raises `FetchFailure`."""
        with local_errors():
            names = os.listdir(self.path) if self.path.is_dir() else []
            return sum(_delete_if_unlocked(self.path / name) for name in names if name.endswith(".part"))


def _delete_if_unlocked(path: Path) -> bool:
    try:
        with _locked(path):
            path.unlink()
    except (FileNotFoundError, BlockingIOError):
        return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
