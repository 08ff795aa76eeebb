"""Files of SFTP servers, read with many requests at a time."""

import asyncio
import mimetypes
import stat
import time
from collections import deque
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar, cast

import asyncssh

from spine.egress.fetch_failure import FetchFailure
from spine.egress.guarded_call import GuardedCall
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory
from spine.sources.readers.base import (
    CHUNK,
    MOST_FILES,
    Item,
    Unchanged,
    Validators,
    changed_while_read,
    limited,
    not_found,
    too_many_matches,
)
from spine.sources.readers.globs import Entry, find, has_magic, path_below
from spine.sources.readers.sftp_connection import EventLoop, SftpLocation, client_key_of, connect

__all__ = ["SftpLocation", "SftpReader"]

SECONDS_FOR_AN_ANSWER = 60
# The protocol has times in whole seconds: a younger file could change again without a new mtime.
SECONDS_UNTIL_SETTLED = 1.1
# One request reads what every server sends at once, or more from servers that announce it. Over OpenSSH on loopback
# 256 KiB take 1.3 s of CPU for 256 MiB, and 32 KiB take 2.4 s.
SMALLEST_READ, LARGEST_READ = 32 * 1024, 256 * 1024
# So many bytes are requested at a time, which fills a fast and distant line, and are in memory at most.
MOST_REQUESTED = 4 * 1024 * 1024
T = TypeVar("T")


class SftpReader:
    """Reads the regular files that match the path."""

    def __init__(self, location: SftpLocation, allow_private: bool, limits: Limits) -> None:
        self._location = location
        self._limits = limits
        # Before anything is connected, because an invalid key can be reported without the server.
        self._key = client_key_of(location.private_key) if location.private_key is not None else None
        self._guarded = GuardedCall(allow_private, limits)
        self._loop: EventLoop | None = None
        self._connection: asyncssh.SSHClientConnection | None = None

    def items(self, known: Mapping[str, Validators], force: bool) -> Iterator[Item | Unchanged]:
        """The files in the order of their paths. Directories that match a pattern are skipped."""
        loop = self._loop = EventLoop(self._guarded, self._limits)
        with self._translated_errors(self._location.url(self._location.path)):
            self._connection = connect(self._location, self._key, loop, self._guarded, self._limits)
            client = loop.run(_answer(self._connection.start_sftp_client()))
        for path in self._matches(loop, client):
            key = self._location.url(path)
            with self._translated_errors(key, listed=has_magic(self._location.path)):
                file, before = loop.run(_open(client, path, key, self._limits))
            validators = _validators(before)
            known_one = known.get(key)
            if not force and known_one is not None and known_one.etag == validators.etag:
                loop.start(file.close())
                yield Unchanged(key, validators)
                continue
            self._limits.expect(before.size)
            name = path.rpartition("/")[2]
            download = _Download(file, before.size or 0, client.limits.max_read_len)
            chunks = limited(self._read(loop, download, before, key), self._limits)
            yield Item(key, name, validators, mimetypes.guess_type(name)[0], None, chunks)
            loop.start(file.close())

    def close(self) -> None:
        """Close the connection."""
        if self._loop is not None:
            self._loop.close(self._connection)
            self._loop = self._connection = None
        self._guarded.close()

    def _read(self, loop: EventLoop, download: "_Download", before: asyncssh.SFTPAttrs, key: str) -> Iterator[bytes]:
        taken = 0
        while download.after is None:
            with self._translated_errors(key):
                part = loop.run(download.next_chunk())
            if part:
                taken += len(part)
                yield part
        if taken != (before.size or 0) or _validators(download.after) != _validators(before):
            raise changed_while_read(key)

    def _matches(self, loop: EventLoop, client: asyncssh.SFTPClient) -> list[str]:
        pattern = self._location.path
        if not has_magic(pattern):
            return [pattern]
        # A path without a leading slash is relative to the user's home.
        directory = "/" if pattern.startswith("/") else ""
        with self._translated_errors(self._location.url(pattern)):
            listing = partial(self._listing, loop, client)
            return find(pattern.lstrip("/"), directory, listing, self._location.url(pattern))

    def _listing(self, loop: EventLoop, client: asyncssh.SFTPClient, directory: str) -> Iterator[Entry]:
        self._limits.check_time()
        for name, mode in loop.run(_list(client, directory)):
            path = path_below(directory, name)
            yield Entry(name, path, stat.S_ISDIR(mode), partial(_is_file, loop, client, path, mode))

    @contextmanager
    def _translated_errors(self, key: str, *, listed: bool = False) -> Iterator[None]:
        try:
            yield
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory):
            raise not_found(key, listed=listed) from None
        except asyncssh.SFTPPermissionDenied:
            raise FetchFailure(ErrorCategory.AUTH, f"The server denied access to {key}.") from None
        except UnicodeError:
            # All names of a directory are decoded before any can be left out.
            sentence = f"{key} cannot be listed because a directory contains a name that is not UTF-8."
            raise FetchFailure(ErrorCategory.SOURCE, sentence) from None
        except (asyncssh.Error, OSError):
            self._limits.check_time()
            sentence = f"The server of {key} closed the connection, did not answer, or reported an error."
            raise FetchFailure(ErrorCategory.NETWORK, sentence, transient=True) from None


class _Download:
    """The content of a file to its end, or to one byte more than `size`, which shows that the file has grown."""

    def __init__(self, file: asyncssh.SFTPClientFile, size: int, longest: int) -> None:
        self._file = file
        self._longest = min(max(longest, SMALLEST_READ), LARGEST_READ)
        self._requested = 0
        self._end = size + 1
        self._requests: deque[tuple[int, asyncio.Task[bytes]]] = deque()
        # The attributes of the file after its last byte was read.
        self.after: asyncssh.SFTPAttrs | None = None

    async def next_chunk(self) -> bytes:
        """The next chunk; afterwards `after` shows whether it is the last. Raises as `_answer`."""
        parts: list[bytes] = []
        size = 0
        while size < CHUNK and self.after is None:
            self._request_more()
            length, request = self._requests.popleft()
            part = await _answer(request)
            parts.append(part)
            size += len(part)
            # A short part shows the end of the file; what was requested beyond it is not needed.
            if len(part) < length or (not self._requests and self._requested == self._end):
                self._cancel_requests()
                self.after = await _answer(self._file.stat())
        return b"".join(parts)

    def _cancel_requests(self) -> None:
        while self._requests:
            self._requests.popleft()[1].cancel()

    def _request_more(self) -> None:
        while self._requested < self._end and (len(self._requests) + 1) * self._longest <= MOST_REQUESTED:
            length = min(self._longest, self._end - self._requested)
            request = asyncio.ensure_future(self._block(self._requested, length))
            # After a failure the other requests are not awaited, which asyncio would log.
            request.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._requests.append((length, request))
            self._requested += length

    async def _block(self, offset: int, length: int) -> bytes:
        part = await self._one_request(offset, length)
        # A server may send less than was requested; only an empty answer shows the end of the file.
        while 0 < len(part) < length and (more := await self._one_request(offset + len(part), length - len(part))):
            part += more
        return part

    async def _one_request(self, offset: int, length: int) -> bytes:
        # The file is open in binary mode, which asyncssh's types do not express.
        return cast(bytes, await self._file.read(length, offset))


async def _answer(request: Awaitable[T]) -> T:
    """The answer to a request. Raises `asyncssh.Error`, and `TimeoutError` if the server is silent."""
    async with asyncio.timeout(SECONDS_FOR_AN_ANSWER):
        return await request


async def _open(
    client: asyncssh.SFTPClient, path: str, key: str, limits: Limits
) -> tuple[asyncssh.SFTPClientFile, asyncssh.SFTPAttrs]:
    """Open a regular file, once it is old enough for a change to show in its mtime."""
    _must_be_regular(await _answer(client.stat(path)), key)
    # Each `read` is then one request; `_Download` makes them in parallel.
    file = await _answer(client.open(path, "rb", block_size=0))
    before = await _answer(file.stat())
    age = time.time() - (before.mtime or 0)
    if 0 <= age < SECONDS_UNTIL_SETTLED:
        await asyncio.sleep(limits.wait(SECONDS_UNTIL_SETTLED - age))
        before = await _answer(file.stat())
    _must_be_regular(before, key)
    return file, before


async def _list(client: asyncssh.SFTPClient, directory: str) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    # The path is bytes because asyncssh would otherwise also decode the long form of each entry.
    entries = client.scandir(directory.encode() or b".")
    while (entry := await _answer(anext(entries, None))) is not None:
        name = entry.filename
        found.append((name.decode() if isinstance(name, bytes) else name, entry.attrs.permissions or 0))
        if len(found) > 10 * MOST_FILES:
            raise too_many_matches(directory)
    return [(name, mode) for name, mode in found if name not in (".", "..")]


def _is_file(loop: EventLoop, client: asyncssh.SFTPClient, path: str, mode: int) -> bool:
    """Whether to read this. A link must lead to a regular file; special files count, so that reading them fails."""
    if not stat.S_ISLNK(mode):
        return True
    try:
        return stat.S_ISREG(loop.run(_answer(client.stat(path))).permissions or 0)
    except (asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost):
        raise
    except asyncssh.SFTPError:
        return False


def _must_be_regular(found: asyncssh.SFTPAttrs, key: str) -> None:
    # The mode is optional in the protocol.
    if found.permissions is not None and not stat.S_ISREG(found.permissions):
        raise FetchFailure(ErrorCategory.CONFIG, f"{key} is not a regular file.")


def _validators(found: asyncssh.SFTPAttrs) -> Validators:
    if found.mtime is None or found.size is None:
        return Validators(size=found.size)
    etag = f'"{found.size:x}-{found.mtime:x}"'
    return Validators(etag, datetime.fromtimestamp(found.mtime, UTC), found.size)
