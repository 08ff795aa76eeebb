"""Files and folders that only this user may read, whatever the umask of the process."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

# The permissions of the group and of others.
_OTHERS = 0o077


class NotPrivate(Exception):
    """Other users can read or write the state folder; the message is one sentence that a person can act on."""


def make_private_folder(path: Path) -> None:
    """Make a folder that only this user may read, with the missing folders above it."""
    if not path.is_dir():
        make_private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def make_private_file(path: Path) -> None:
    """Make an empty file that only this user may read, unless it exists; then it stays as it is."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))


def write_private_file(path: Path, text: str) -> None:
    """Write a file that only this user may read; readers see all of it or nothing."""
    temporary = path.with_name(f"{path.name}.{uuid4().hex[:8]}.new")
    make_private_file(temporary)
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def close_to_others(folder: Path) -> int:
    """Take all permissions on a state folder, and on all in it, from other users; returns how many entries had any.

    Symbolic links are not followed. Raises `NotPrivate` if the folder, or something in it, belongs to another user, who
    could have put it there or could open it again. Does nothing if there is no folder.
    """
    if not folder.is_dir():
        return 0
    return sum(_close(path, found) for path, found in _entries(folder))


def open_to_others(folder: Path) -> list[Path]:
    """What in a state folder other users may read or write, or owns it; empty if there is nothing, or no folder."""
    if not folder.is_dir():
        return []
    return [path for path, found in _entries(folder) if found.st_uid != os.geteuid() or _is_open(found)]


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    yield folder, folder.stat()
    for directory, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(directory, name)
            # Running processes may remove their files at any time.
            with suppress(FileNotFoundError):
                yield path, path.lstat()


def _is_open(found: os.stat_result) -> bool:
    # The permissions of a symbolic link mean nothing.
    return not stat.S_ISLNK(found.st_mode) and bool(found.st_mode & _OTHERS)


def _close(path: Path, found: os.stat_result) -> bool:
    if found.st_uid != os.geteuid():
        raise NotPrivate(
            f"{path} belongs to another user (uid {found.st_uid}); "
            "use a state folder that this user owns with all that is in it."
        )
    if not _is_open(found):
        return False
    try:
        path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
    except FileNotFoundError:
        return False
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise NotPrivate(f"Other users can read {path}, and its permissions cannot be changed ({reason}).") from None
    return True
