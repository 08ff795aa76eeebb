"""Files of this machine, only below the directories in SPINE_FILE_ROOTS.

The path is resolved first and then opened directory by directory without following links, so a link that is put in
place between the two steps is refused.
"""

import errno
import mimetypes
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from io import FileIO
from pathlib import Path

from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.egress.paths import FileRoots
from spine.schemas import ErrorCategory
from spine.sources.readers.base import CHUNK, Item, Unchanged, Validators, changed_while_read, not_found
from spine.sources.readers.globs import Entry, find, has_magic

# File systems take mtime from a clock that ticks at least a hundred times a second. A file that is only a few ticks
# old could change again without a new mtime.
SECONDS_UNTIL_SETTLED = 0.05
_NO_FOLLOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a FIFO would wait for a writer.
_FILE = _NO_FOLLOW | os.O_NONBLOCK
_DIRECTORY = _NO_FOLLOW | os.O_DIRECTORY
# A part of the path is a link or no directory.
_NOT_THAT_PATH = {errno.ELOOP, errno.ENOTDIR}


class FileReader:
    """Reads the regular files that match `path`, which is absolute or relative to the only root."""

    def __init__(self, path: str, roots: FileRoots, limits: Limits) -> None:
        self._path = path
        self._roots = roots
        self._limits = limits
        self._file: FileIO | None = None

    def items(self, known: Mapping[str, Validators], force: bool) -> Iterator[Item | Unchanged]:
        """The files in the order of their paths. Directories that match a pattern are skipped."""
        for path in self._matches():
            file = self._file = self._open(path)
            before = _settled(file.fileno(), self._limits)
            key = _printable(path)
            validators = _validators(before)
            before_known = known.get(key)
            if not force and before_known is not None and before_known.etag == validators.etag:
                self.close()
                yield Unchanged(key, validators)
                continue
            name = _printable(os.path.basename(path))
            self._limits.expect(before.st_size)
            yield Item(key, name, validators, mimetypes.guess_type(name)[0], None, self._read(file, before, key))
            self.close()

    def close(self) -> None:
        """Close the open file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _matches(self) -> list[str]:
        if not has_magic(self._path):
            return [self._roots.absolute(self._path)]
        # Wildcard characters in the root's own path are literal.
        root, rest = self._roots.split(self._path)
        return find(rest, os.path.normpath(root), self._listing, self._path)

    def _listing(self, directory: str) -> Iterator[Entry]:
        self._limits.check_time(ErrorCategory.SOURCE)
        # A directory can be removed at any moment.
        with (
            _translated_errors(directory),
            suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(directory) as entries,
        ):
            for one in entries:
                yield Entry(one.name, one.path, one.is_dir(follow_symlinks=False), partial(_is_file, one))

    def _open(self, path: str) -> FileIO:
        """Open a regular file. Raises `FetchFailure`."""
        with _translated_errors(path, listed=has_magic(self._path)):
            real = Path(os.path.realpath(path, strict=True))
            root = self._roots.root_of(real, _printable(path))
            if not stat.S_ISREG(real.lstat().st_mode):
                raise _not_regular(path)
        with _translated_errors(path, resolved=True):
            descriptor = _open_below(root, real.relative_to(root).parts)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _not_regular(path)
        return open(descriptor, "rb", buffering=0)

    def _read(self, file: FileIO, before: os.stat_result, key: str) -> Iterator[bytes]:
        with _translated_errors(key):
            taken = 0
            while part := file.read(CHUNK):
                taken += len(part)
                # Otherwise a file that grows faster than it is read would never end.
                if taken > before.st_size:
                    raise changed_while_read(key)
                self._limits.check_time(ErrorCategory.SOURCE)
                self._limits.take(len(part))
                yield part
            if _validators(os.fstat(file.fileno())) != _validators(before) or taken != before.st_size:
                raise changed_while_read(key)


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether to read this. A link must point to a regular file; special files count, so that reading them fails."""
    return not entry.is_symlink() or os.path.isfile(entry.path)


def _open_below(root: Path, parts: tuple[str, ...]) -> int:
    """Open a file below a directory without following links. Raises `OSError`."""
    directory = os.open(root, _DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = inner
        return os.open(parts[-1], _FILE, dir_fd=directory)
    finally:
        os.close(directory)


def _settled(descriptor: int, limits: Limits) -> os.stat_result:
    """The status of an open file, once it is old enough for a change to show in its mtime."""
    found = os.fstat(descriptor)
    age = time.time() - found.st_mtime
    if 0 <= age < SECONDS_UNTIL_SETTLED:
        time.sleep(limits.wait(SECONDS_UNTIL_SETTLED - age, ErrorCategory.SOURCE))
        found = os.fstat(descriptor)
    return found


def _validators(found: os.stat_result) -> Validators:
    etag = f'"{found.st_size:x}-{found.st_mtime_ns:x}"'
    return Validators(etag, datetime.fromtimestamp(found.st_mtime, UTC), found.st_size)


def _printable(path: str) -> str:
    """A path that every database can store, even if the file's name is not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _not_regular(path: str) -> FetchFailure:
    return FetchFailure(ErrorCategory.CONFIG, f"{_printable(path)} is not a regular file.")


@contextmanager
def _translated_errors(path: str, *, listed: bool = False, resolved: bool = False) -> Iterator[None]:
    """Translate `OSError` into `FetchFailure`; a path that was just `resolved` and is gone has been changed."""
    key = _printable(path)
    try:
        yield
    except FileNotFoundError:
        raise (changed_while_read(key) if resolved else not_found(key, listed=listed)) from None
    except PermissionError:
        raise FetchFailure(ErrorCategory.AUTH, f"Spine has no permission to read {key}.") from None
    except OSError as error:
        if error.errno in _NOT_THAT_PATH:
            raise (changed_while_read(key) if resolved else not_found(key, listed=listed)) from None
        reason = os.strerror(error.errno) if error.errno else "it cannot be read"
        raise FetchFailure(ErrorCategory.SOURCE, f"{key}: {reason}.", transient=True) from None
