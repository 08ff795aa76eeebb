"""The content of a file that may be compressed, read in bounded memory and up to a bounded size."""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa

from spine.sources.parsers.config import compression_suffix
from spine.sources.parsers.parse_errors import BrokenFile

CHUNK = 1 << 20
LEAST_LIMIT = 100_000_000
MOST_EXPANSION = 200
# A folder of one file is far smaller; zipfile would load it whole and make objects of it.
LARGEST_DIRECTORY = 1 << 20

_GZIP, _ZIP, _ZSTD, _BZ2 = ".gz", ".zip", ".zst", ".bz2"
_MAGIC = {
    _GZIP: (b"\x1f\x8b\x08",),
    _ZIP: (b"PK\x03\x04", b"PK\x05\x06"),
    # The second is a frame to be skipped, which some tools write first.
    _ZSTD: (b"\x28\xb5\x2f\xfd", *(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))),
    _BZ2: tuple(b"BZh%d%s" % (level, block) for level in range(1, 10) for block in (b"1AY&SY", b"\x17rE8P\x90")),
}
_LONGEST_MAGIC = 10
_CODECS = {_GZIP: "gzip", _ZSTD: "zstd", _BZ2: "bz2"}
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


# Raises when reading must end.
Check = Callable[[], None]


def unchecked() -> None:
    """Reading may take as long as it takes."""


@dataclass(frozen=True)
class File:
    """A file to be parsed: `name` tells its compression, and `check` is called again and again while it is read."""

    path: Path
    name: str
    max_expanded_bytes: int | None = None
    check: Check = unchecked

    @property
    def expansion_limit(self) -> int:
        """How many bytes it may expand to."""
        return expansion_limit(self.path.stat().st_size, self.max_expanded_bytes)


class Readable(Protocol):
    """Something to read bytes from."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; none at the end."""


def expansion_limit(size: int, configured: int | None = None) -> int:
    """How many bytes so many compressed ones may expand to."""
    return configured or max(LEAST_LIMIT, MOST_EXPANSION * size)


@contextmanager
def content_of(file: File) -> Iterator[Readable]:
    """The decompressed content of a file. Raises `BrokenFile` and what its `check` raises, also while it is read."""
    with file.path.open("rb") as stored:
        head = stored.read(_LONGEST_MAGIC)
        stored.seek(0)
        suffix = _suffix_of(head, file.name)
        if suffix is None:
            yield _Checked(stored, file.check)
            return
        with ExitStack() as stack:
            with _translated(suffix):
                inner = stack.enter_context(_opened(stored, suffix))
            yield _Checked(_Expanding(inner, suffix, file.expansion_limit), file.check)


def _suffix_of(head: bytes, name: str) -> str | None:
    suffix = compression_suffix(name)
    found = _magic_of(head)
    if suffix is not None and suffix != found:
        raise BrokenFile(f"it is named {suffix}, but is no {suffix[1:]} file")
    return found


def _magic_of(head: bytes) -> str | None:
    return next((suffix for suffix, magics in _MAGIC.items() if head.startswith(magics)), None)


@contextmanager
def _opened(file: IO[bytes], suffix: str) -> Iterator[Readable]:
    if suffix == _ZIP:
        with zipfile.ZipFile(_Guarded(file)) as archive, archive.open(_only_member(archive)) as member:
            yield member
    else:
        with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), _CODECS[suffix]) as stream:
            yield stream


def _only_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    files = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
    if len(files) != 1:
        raise BrokenFile(f"the zip holds {len(files) or 'no'} files; it must hold exactly one")
    (info,) = files
    if info.flag_bits & _ENCRYPTED:
        raise BrokenFile("the zip is encrypted")
    # zipfile expands the other methods without a bound.
    if info.compress_type not in _METHODS:
        raise BrokenFile(f"the zip is compressed by method {info.compress_type}; only deflate is read")
    return info


class _Guarded:
    """A file of which nothing is read in one piece that is larger than the folder of a zip with one file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size > LARGEST_DIRECTORY:
            raise BrokenFile("the zip's directory is far too large for one file")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0 and offset < 0:
            raise zipfile.BadZipFile
        return self._file.seek(offset, whence)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Checked:
    """Content that is read for as long as it may be."""

    def __init__(self, inner: Readable, check: Check) -> None:
        self._inner = inner
        self._check = check

    def read(self, size: int, /) -> bytes:
        self._check()
        return self._inner.read(size)


class _Expanding:
    """Expanded content, which must not be compressed itself, and not be larger than `limit` bytes."""

    def __init__(self, inner: Readable, suffix: str, limit: int) -> None:
        self._inner = inner
        self._suffix = suffix
        self._limit = limit
        self._taken = 0

    def read(self, size: int, /) -> bytes:
        with _translated(self._suffix):
            data = self._inner.read(min(size, CHUNK))
        if self._taken == 0 and _magic_of(data[:_LONGEST_MAGIC]) is not None:
            raise BrokenFile("it is compressed twice; one compression is read")
        self._taken += len(data)
        if self._taken > self._limit:
            raise BrokenFile(f"it expands to more than {self._limit:,} bytes; max_expanded_bytes may allow more")
        return data


@contextmanager
def _translated(suffix: str) -> Iterator[None]:
    kind = suffix[1:]
    try:
        yield
    except (EOFError, zlib.error, zipfile.BadZipFile, pa.ArrowException) as error:
        raise _damaged(kind, error) from None
    except OSError as error:
        # With a number it is the disk that failed, not the content.
        if error.errno is not None:
            raise
        raise _damaged(kind, error) from None
    except (ValueError, NotImplementedError, RuntimeError, OverflowError):
        # zipfile raises these for headers that lie, and for what it does not know.
        raise BrokenFile(f"the {kind} is damaged or of a kind that is not read") from None


def _damaged(kind: str, error: Exception) -> BrokenFile:
    if isinstance(error, EOFError) or "Truncated" in str(error):
        return BrokenFile(f"the {kind} ends early")
    return BrokenFile(f"the {kind} is damaged")
