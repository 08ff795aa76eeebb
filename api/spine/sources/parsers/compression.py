"""Decompression of files in bounded memory and up to a bounded size."""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa

from spine.sources.parsers.config import compression_suffix
from spine.sources.parsers.parse_errors import ParseError, excerpt, plural
from spine.sources.readers.globs import path_matches

CHUNK = 1 << 20
LEAST_LIMIT = 100_000_000
MOST_EXPANSION = 200
# The directory of a zip of a thousand files is far smaller; zipfile would load all of a larger one as objects.
LARGEST_DIRECTORY = 1 << 20

_GZIP, _ZIP, _ZSTD, _BZ2 = ".gz", ".zip", ".zst", ".bz2"
_MAGIC = {
    _GZIP: (b"\x1f\x8b\x08",),
    _ZIP: (b"PK\x03\x04", b"PK\x05\x06"),
    # The others are skippable frames, which some tools write first.
    _ZSTD: (b"\x28\xb5\x2f\xfd", *(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))),
    _BZ2: tuple(b"BZh%d%s" % (level, block) for level in range(1, 10) for block in (b"1AY&SY", b"\x17rE8P\x90")),
}
_LONGEST_MAGIC = 10
_CODECS = {_GZIP: "gzip", _ZSTD: "zstd", _BZ2: "bz2"}
_ENCRYPTED = 0x1
# Of a zip, in a message.
_MOST_NAMES = 10
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


# Called regularly while a file is read; raises to stop it.
Check = Callable[[], None]


def no_check() -> None:
    """Set no limit."""


@dataclass(frozen=True)
class File:
    """A file to parse: `name` shows its compression, and `check` is called regularly while it is read.

    `member` is the name of the file in a zip that is read, or a pattern that one name matches.
    """

    path: Path
    name: str
    max_expanded_bytes: int | None = None
    check: Check = no_check
    member: str | None = None

    @property
    def expansion_limit(self) -> int:
        """How many bytes the file may expand to."""
        return expansion_limit(self.path.stat().st_size, self.max_expanded_bytes)


class Readable(Protocol):
    """A source of bytes."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; empty at the end."""


def expansion_limit(size: int, configured: int | None = None) -> int:
    """How many bytes `size` compressed bytes may expand to."""
    return configured or max(LEAST_LIMIT, MOST_EXPANSION * size)


@contextmanager
def content_of(file: File) -> Iterator[Readable]:
    """The decompressed content of a file. Raises `ParseError` and what `check` raises, also while it is read."""
    with file.path.open("rb") as stored:
        head = stored.read(_LONGEST_MAGIC)
        stored.seek(0)
        suffix = _suffix_of(head, file.name)
        if suffix is None:
            yield _Checked(stored, file.check)
            return
        with ExitStack() as stack:
            with _translated(suffix):
                inner = stack.enter_context(_opened(stored, suffix, file.member))
            yield _Checked(_Expanding(inner, suffix, file.expansion_limit), file.check)


def _suffix_of(head: bytes, name: str) -> str | None:
    suffix = compression_suffix(name)
    found = _magic_of(head)
    if suffix is not None and suffix != found:
        raise ParseError(f"its name ends in {suffix}, but it is not a {suffix[1:]} file")
    return found


def _magic_of(head: bytes) -> str | None:
    return next((suffix for suffix, magics in _MAGIC.items() if head.startswith(magics)), None)


@contextmanager
def _opened(file: IO[bytes], suffix: str, member: str | None) -> Iterator[Readable]:
    if suffix == _ZIP:
        with zipfile.ZipFile(_BoundedReads(file)) as archive, archive.open(_member_of(archive, member)) as content:
            yield content
    else:
        with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), _CODECS[suffix]) as stream:
            yield stream


def _member_of(archive: zipfile.ZipFile, wanted: str | None) -> zipfile.ZipInfo:
    info = _chosen([info for info in archive.infolist() if _is_file(info)], wanted)
    if info.flag_bits & _ENCRYPTED:
        raise ParseError("the zip is encrypted")
    # zipfile does not bound the expansion of other methods.
    if info.compress_type not in _METHODS:
        raise ParseError(f"the zip uses compression method {info.compress_type}; only deflate is supported")
    return info


def _is_file(info: zipfile.ZipInfo) -> bool:
    return not info.is_dir() and not info.filename.startswith("__MACOSX/")


def _chosen(files: list[zipfile.ZipInfo], wanted: str | None) -> zipfile.ZipInfo:
    """The file that has the wanted name, else the only one that matches it as a pattern, else the only one."""
    if not files:
        raise ParseError("the zip contains no files")
    names = [info.filename for info in files]
    if wanted is None:
        if len(files) > 1:
            raise ParseError(f"the zip contains {_listed(names)}; set archive_member to the name of one")
        return files[0]
    found = [info for info in files if info.filename == wanted]
    found = found or [info for info in files if path_matches(wanted, info.filename)]
    if len(found) != 1:
        how_many = f"{_listed([info.filename for info in found])} match" if found else "none matches"
        raise ParseError(f"the zip contains {_listed(names)}, of which {how_many} archive_member '{excerpt(wanted)}'")
    return found[0]


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{excerpt(name, 80)}'" for name in sorted(names)[:_MOST_NAMES])
    more = ", ..." if len(names) > _MOST_NAMES else ""
    return f"{plural(len(names), 'file')} ({shown}{more})"


class _BoundedReads:
    """A file that refuses reads larger than the directory of a zip of thousands of files."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size > LARGEST_DIRECTORY:
            raise ParseError("the directory of the zip is far too large: more than 1 MB")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0 and offset < 0:
            raise zipfile.BadZipFile
        return self._file.seek(offset, whence)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Checked:
    """Content whose `check` is called before each read."""

    def __init__(self, inner: Readable, check: Check) -> None:
        self._inner = inner
        self._check = check

    def read(self, size: int, /) -> bytes:
        self._check()
        return self._inner.read(size)


class _Expanding:
    """Expanded content, which must not itself be compressed and not exceed `limit` bytes."""

    def __init__(self, inner: Readable, suffix: str, limit: int) -> None:
        self._inner = inner
        self._suffix = suffix
        self._limit = limit
        self._taken = 0

    def read(self, size: int, /) -> bytes:
        with _translated(self._suffix):
            data = self._inner.read(min(size, CHUNK))
        if self._taken == 0 and _magic_of(data[:_LONGEST_MAGIC]) is not None:
            raise ParseError("it is compressed twice; only one compression is supported")
        self._taken += len(data)
        if self._taken > self._limit:
            raise ParseError(f"it expands to more than {self._limit:,} bytes; set max_expanded_bytes to allow more")
        return data


@contextmanager
def _translated(suffix: str) -> Iterator[None]:
    kind = suffix[1:]
    try:
        yield
    except (EOFError, zlib.error, zipfile.BadZipFile, pa.ArrowException) as error:
        raise _damaged(kind, error) from None
    except OSError as error:
        # An error with a number is a failure of the disk, not of the content.
        if error.errno is not None:
            raise
        raise _damaged(kind, error) from None
    except (ValueError, NotImplementedError, RuntimeError, OverflowError):
        # zipfile raises these for inconsistent headers and unsupported features.
        raise ParseError(f"the {kind} is damaged or not supported") from None


def _damaged(kind: str, error: Exception) -> ParseError:
    if isinstance(error, EOFError) or "Truncated" in str(error):
        return ParseError(f"the {kind} ends early")
    return ParseError(f"the {kind} is damaged")
