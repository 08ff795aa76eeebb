"""Files of this machine, only below the folders that SPINE_FILE_ROOTS opens.

The path is resolved first, and then opened one folder after the other without following any link, so that a link that
is put in place in between leads nowhere.
"""

import errno
import mimetypes
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from io import FileIO
from pathlib import Path

from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.egress.paths import absolute_path, outside_of_roots, resolved_root_of, split_at_root
from spine.schemas import ErrorCategory
from spine.sources.readers.base import CHUNK, Item, Unchanged, Validators, changed_meanwhile, not_there
from spine.sources.readers.globs import Entry, find, has_magic

# The clock that file systems take their times from ticks a hundred times a second or faster. What is younger than some
# ticks could change once more and look the same.
SECONDS_UNTIL_SETTLED = 0.05
_SAFELY = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO would wait for a writer.
_FILE = _SAFELY | os.O_NONBLOCK
_FOLDER = _SAFELY | os.O_DIRECTORY
_NO_LONGER_THAT = {errno.ELOOP, errno.ENOTDIR}


class FileReader:
    """Reads the regular files that `path`, absolute or relative to the only root, names or matches."""

    def __init__(self, path: str, roots: Sequence[Path], limits: Limits) -> None:
        self._path = path
        self._roots = roots
        self._limits = limits
        self._file: FileIO | None = None

    def items(self, known: Mapping[str, Validators], force: bool) -> Iterator[Item | Unchanged]:
        """The files in the order of their paths. A folder that a pattern matches is passed over."""
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
        """Close the file that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _matches(self) -> list[str]:
        if not has_magic(self._path):
            return [absolute_path(self._path, self._roots)]
        # The root's own name is no pattern.
        root, rest = split_at_root(self._path, self._roots)
        return find(rest, os.path.normpath(root), self._listing, self._path)

    def _listing(self, folder: str) -> Iterator[Entry]:
        self._limits.check_time(ErrorCategory.SOURCE)
        # A folder can go at any moment.
        with _explained(folder), suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            for one in entries:
                yield Entry(one.name, one.path, one.is_dir(follow_symlinks=False), partial(_is_file, one))

    def _open(self, path: str) -> FileIO:
        """A regular file."""
        with _explained(path, listed=has_magic(self._path)):
            real = Path(os.path.realpath(path, strict=True))
            root = resolved_root_of(real, self._roots)
            if root is None:
                raise outside_of_roots(_printable(path))
            if not stat.S_ISREG(real.lstat().st_mode):
                raise _no_file(path)
        with _explained(path, was_there=True):
            descriptor = _open_below(root, real.relative_to(root).parts)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _no_file(path)
        return open(descriptor, "rb", buffering=0)

    def _read(self, file: FileIO, before: os.stat_result, key: str) -> Iterator[bytes]:
        with _explained(key):
            taken = 0
            while part := file.read(CHUNK):
                taken += len(part)
                # A file that somebody writes to faster than it is read would never end.
                if taken > before.st_size:
                    raise changed_meanwhile(key)
                self._limits.check_time(ErrorCategory.SOURCE)
                self._limits.take(len(part))
                yield part
            if _validators(os.fstat(file.fileno())) != _validators(before) or taken != before.st_size:
                raise changed_meanwhile(key)


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether what is no folder can be read, or else is to be told of."""
    return not entry.is_symlink() or os.path.isfile(entry.path)


def _open_below(root: Path, parts: tuple[str, ...]) -> int:
    """Open a file below a folder without following a link. Raises `OSError`."""
    folder = os.open(root, _FOLDER)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(parts[-1], _FILE, dir_fd=folder)
    finally:
        os.close(folder)


def _settled(descriptor: int, limits: Limits) -> os.stat_result:
    """What is known of an open file, once it is old enough for a change to show."""
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
    """A path that every database can keep, also where the name of a file is no UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _no_file(path: str) -> FetchFailure:
    return FetchFailure(ErrorCategory.CONFIG, f"{_printable(path)} is no regular file; only those are read.")


@contextmanager
def _explained(path: str, *, listed: bool = False, was_there: bool = False) -> Iterator[None]:
    key = _printable(path)
    try:
        yield
    except FileNotFoundError:
        raise (changed_meanwhile(key) if was_there else not_there(key, listed=listed)) from None
    except PermissionError:
        raise FetchFailure(ErrorCategory.AUTH, f"Spine may not read {key}.") from None
    except OSError as error:
        if error.errno in _NO_LONGER_THAT:
            raise (changed_meanwhile(key) if was_there else not_there(key, listed=listed)) from None
        said = os.strerror(error.errno) if error.errno else "it cannot be read"
        raise FetchFailure(ErrorCategory.SOURCE, f"{key}: {said}.", transient=True) from None
