"""Part files: content on its way into the cache, hashed while it is written.

A part belongs to a living process, which holds a lock (`flock`) on it. The kernel drops the lock of a process that
dies, however it dies, so that a part which nobody has locked is what a dead process left behind.
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

# Chunks that are written but not hashed yet; more would only take memory.
_AHEAD = 4


@dataclass(frozen=True)
class Written:
    """What a part holds: its SHA-256 (hex), and how many bytes."""

    content_hash: str
    size_bytes: int


class Part:
    """A file that is written once, front to back, by one thread; others may read it while it is there.

    Raises `FetchFailure` where the disk does not take it. Ends with `discard`, whatever has become of it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._size = 0
        self._hasher = _Hasher()
        self._written: Written | None = None

    def write(self, chunk: bytes) -> None:
        """Append a chunk, which must not change afterwards."""
        self._hasher.take(chunk)
        rest = memoryview(chunk)
        with local_errors():
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        self._size += len(chunk)

    def finish(self) -> Written:
        """Bring everything to the disk and tell what it is; safe to repeat."""
        if self._written is None:
            with local_errors():
                os.fsync(self._descriptor)
            self._written = Written(self._hasher.finish(), self._size)
        return self._written

    def discard(self) -> None:
        """Let go of the file, and remove it unless it was published; safe to repeat."""
        if self._descriptor < 0:
            return
        self._hasher.finish()
        # While the lock is held: the name cannot be anybody else's.
        with suppress(OSError):
            self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = -1


class _Hasher:
    """Hashes in a thread of its own, a few chunks behind the writer; hashing lets other threads run."""

    def __init__(self) -> None:
        self._hash = sha256()
        self._chunks: SimpleQueue[bytes | None] = SimpleQueue()
        self._room = Semaphore(_AHEAD)
        self._thread: Thread | None = None

    def take(self, chunk: bytes) -> None:
        """Hash a chunk soon; waits while there are too many."""
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


class PartFolder:
    """Where parts lie; several processes may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self) -> Part:
        """A new, empty part. Raises `FetchFailure`."""
        with local_errors():
            private_folder(self.path)
            while True:
                path = self.path / f"{uuid4().hex}.part"
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # Between the two somebody may have swept it, as nobody had locked it.
                if os.fstat(descriptor).st_nlink:
                    return Part(path, descriptor)
                os.close(descriptor)

    def sweep(self) -> int:
        """Remove the parts whose process is gone; how many they were. Raises `FetchFailure`."""
        with local_errors():
            names = os.listdir(self.path) if self.path.is_dir() else []
            return sum(_swept(self.path / name) for name in names if name.endswith(".part"))


def _swept(path: Path) -> bool:
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


def private_folder(path: Path) -> None:
    """Make a folder that nobody else may look into, and those above it that are missing."""
    if not path.is_dir():
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
