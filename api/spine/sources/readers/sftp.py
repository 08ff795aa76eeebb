"""Files of SFTP servers whose key is the one that was configured; nothing is told to any other."""

import mimetypes
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import paramiko

from spine.egress.fetch_failure import FetchFailure
from spine.egress.guarded_call import GuardedCall
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory
from spine.sources.readers.base import (
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
from spine.sources.readers.sftp_download import download
from spine.sources.readers.sftp_login import SftpLocation, connected, key_of

__all__ = ["SftpLocation", "SftpReader"]

SECONDS_FOR_AN_ANSWER = 60
# The protocol tells times in whole seconds: what is younger could change once more and look the same.
SECONDS_UNTIL_SETTLED = 1.1


class SftpReader:
    """Reads the regular files that the path names or matches."""

    def __init__(self, location: SftpLocation, allow_private: bool, limits: Limits) -> None:
        self._location = location
        self._limits = limits
        # Before anything is connected: a key that is none needs no server to say so.
        self._key = key_of(location.private_key) if location.private_key is not None else None
        self._guarded = GuardedCall(allow_private, limits)
        self._client: paramiko.SFTPClient | None = None

    def items(self, known: Mapping[str, Validators], force: bool) -> Iterator[Item | Unchanged]:
        """The files in the order of their paths. A folder that a pattern matches is passed over."""
        with self._explained(self._location.name(self._location.path)):
            client = self._client = self._guarded.run(connected, self._location, self._key, self._guarded, self._limits)
        for path in self._matches(client):
            key = self._location.name(path)
            with self._explained(key, listed=has_magic(self._location.path)):
                file, before = self._guarded.run(self._open, client, path, key)
            validators = _validators(before)
            known_one = known.get(key)
            if not force and known_one is not None and known_one.etag == validators.etag:
                file.close()
                yield Unchanged(key, validators)
                continue
            self._limits.expect(before.st_size)
            name = path.rpartition("/")[2]
            chunks = limited(self._read(client, file, before, key), self._limits)
            yield Item(key, name, validators, mimetypes.guess_type(name)[0], None, chunks)
            file.close()

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            channel = self._client.get_channel()
            transport = channel.get_transport() if channel is not None else None
            self._client.close()
            if transport is not None:
                transport.close()
            self._client = None
        self._guarded.close()

    def _open(
        self, client: paramiko.SFTPClient, path: str, key: str
    ) -> tuple[paramiko.SFTPFile, paramiko.SFTPAttributes]:
        """A regular file that is old enough for a change to show."""
        _must_be_regular(client.stat(path), key)
        file = client.open(path, "rb")
        before = file.stat()
        age = time.time() - (before.st_mtime or 0)
        if 0 <= age < SECONDS_UNTIL_SETTLED:
            time.sleep(self._limits.wait(SECONDS_UNTIL_SETTLED - age))
            before = file.stat()
        _must_be_regular(before, key)
        return file, before

    def _read(
        self, client: paramiko.SFTPClient, file: paramiko.SFTPFile, before: paramiko.SFTPAttributes, key: str
    ) -> Iterator[bytes]:
        size = before.st_size or 0
        parts = download(client, file, size, self._limits)
        taken = 0
        while True:
            with self._explained(key):
                part = self._guarded.run(next, parts, b"")
            if not part:
                break
            taken += len(part)
            yield part
        with self._explained(key):
            after = self._guarded.run(file.stat)
        if taken != size or _validators(after) != _validators(before):
            raise changed_while_read(key)

    def _matches(self, client: paramiko.SFTPClient) -> list[str]:
        pattern = self._location.path
        if not has_magic(pattern):
            return [pattern]
        # A path without a folder to begin with is one from the user's home.
        folder = "/" if pattern.startswith("/") else ""
        with self._explained(self._location.name(pattern)):
            listing = partial(self._listing, client)
            return self._guarded.run(find, pattern.lstrip("/"), folder, listing, self._location.name(pattern))

    def _listing(self, client: paramiko.SFTPClient, folder: str) -> Iterator[Entry]:
        self._limits.check_time()
        for one in _listed(client, folder):
            path, mode = path_below(folder, one.filename), one.st_mode or 0
            yield Entry(one.filename, path, stat.S_ISDIR(mode), partial(_is_file, client, path, mode))

    @contextmanager
    def _explained(self, key: str, *, listed: bool = False) -> Iterator[None]:
        """Put what paramiko raises into a sentence."""
        try:
            yield
        except FetchFailure:
            raise
        except FileNotFoundError:
            raise not_found(key, listed=listed) from None
        except PermissionError:
            raise FetchFailure(ErrorCategory.AUTH, f"The server does not let Spine read {key}.") from None
        except UnicodeError:
            # paramiko takes all that a server says for UTF-8, and all names of a folder before any can be left out.
            sentence = f"What the server says of {key} is not UTF-8; a folder with such a name in it cannot be listed."
            raise FetchFailure(ErrorCategory.SOURCE, sentence) from None
        # An answer of the server, such as that it failed, is an OSError without a number.
        except (paramiko.SSHException, paramiko.SFTPError, EOFError, OSError):
            self._limits.check_time()
            sentence = f"The server of {key} broke off, was silent, or could not do what was asked."
            raise FetchFailure(ErrorCategory.NETWORK, sentence, transient=True) from None


def _listed(client: paramiko.SFTPClient, folder: str) -> list[paramiko.SFTPAttributes]:
    listed = []
    for one in client.listdir_iter(folder or "."):
        listed.append(one)
        if len(listed) > 10 * MOST_FILES:
            raise too_many_matches(folder)
    return listed


def _is_file(client: paramiko.SFTPClient, path: str, mode: int) -> bool:
    """Whether what is no folder can be read, or else is to be told of."""
    if not stat.S_ISLNK(mode):
        return True
    try:
        return stat.S_ISREG(client.stat(path).st_mode or 0)
    except OSError:
        return False


def _must_be_regular(found: paramiko.SFTPAttributes, key: str) -> None:
    # A server need not tell what kind of file it is.
    if found.st_mode is not None and not stat.S_ISREG(found.st_mode):
        raise FetchFailure(ErrorCategory.CONFIG, f"{key} is no regular file; only those are read.")


def _validators(found: paramiko.SFTPAttributes) -> Validators:
    if found.st_mtime is None or found.st_size is None:
        return Validators(size=found.st_size)
    etag = f'"{found.st_size:x}-{found.st_mtime:x}"'
    return Validators(etag, datetime.fromtimestamp(found.st_mtime, UTC), found.st_size)
