"""The keys that encrypt stored secrets: from `SPINE_SECRET_KEY`, or from a generated file in Spine's home."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from spine.errors import Conflict, Unavailable
from spine.private_files import make_private_folder
from spine.settings import Settings

KEY_FILE = "secret-key"


class SecretUnreadable(Unavailable):
    """A stored secret was encrypted with a key that is not available, or the key file is unusable."""


class Keyring:
    """Encrypts with the newest key and decrypts with any key."""

    def __init__(self, keys: list[str], path: Path | None = None) -> None:
        self._path = path
        # None: the file may have changed since `keys` were read, so the first use reads it again.
        self._version: tuple[int, int] | None = None
        self._fernet = _fernet(keys)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Keyring":
        """The keys of `SPINE_SECRET_KEY`, or of the key file, which is created if it does not exist.

        Raises `SecretUnreadable` if the key file is unusable.
        """
        if settings.secret_key is not None:
            return cls(split_keys(settings.secret_key.get_secret_value()))
        path = settings.home.absolute() / KEY_FILE
        ensure_key_file(path)
        return cls(read_key_file(path), path)

    def encrypt(self, text: str) -> str:
        """The encrypted token of a secret, for storage."""
        self._reload_if_changed()
        return self._fernet.encrypt(text.encode()).decode()

    def decrypt(self, token: str) -> str:
        """The secret of an encrypted token. Raises `SecretUnreadable`."""
        self._reload_if_changed()
        with suppress(InvalidToken):
            return self._fernet.decrypt(token.encode()).decode()
        try:
            # A file that was overwritten in place may look unchanged.
            self._reload()
            return self._fernet.decrypt(token.encode()).decode()
        except InvalidToken:
            raise SecretUnreadable(
                "A stored secret cannot be decrypted with the current SPINE_SECRET_KEY or key file; "
                "restore the key that it was encrypted with."
            ) from None

    def _reload_if_changed(self) -> None:
        """Check for a rotation by another process, and read the new keys."""
        if self._path is not None and _version_of(self._path) not in (None, self._version):
            self._reload()

    def _reload(self) -> None:
        if self._path is not None:
            # Read before the content, so that a file which changes in between is read again the next time.
            version = _version_of(self._path)
            self._fernet, self._version = _fernet(read_key_file(self._path)), version


def split_keys(text: str) -> list[str]:
    """Fernet keys, separated by commas or newlines, newest first. Raises `ValueError`, which does not contain them."""
    keys = [key.strip() for key in text.replace("\n", ",").split(",") if key.strip()]
    if not keys:
        raise ValueError("it contains no key")
    _fernet(keys)
    return keys


def ensure_key_file(path: Path) -> None:
    """Create the key file if it does not exist; if several processes do this at once, one of them creates it."""
    with _file_errors():
        if path.exists():
            return
        make_private_folder(path.parent)
        with _temporary_key_file(path, [Fernet.generate_key().decode()]) as written, suppress(FileExistsError):
            # A link never overwrites a file, and shows the complete file at once.
            os.link(written, path)
        _sync_folder(path.parent)


def read_key_file(path: Path) -> list[str]:
    """The keys in a file, newest first. Raises `SecretUnreadable`."""
    with _file_errors():
        try:
            return split_keys(path.read_text())
        except ValueError as reason:
            raise SecretUnreadable(f"The key file is invalid ({reason}); restore it.") from None


def replace_key_file(path: Path, keys: list[str]) -> None:
    """Replace the keys in the file atomically and durably: a power cut does not restore the old ones."""
    with _file_errors():
        with _temporary_key_file(path, keys) as written:
            written.replace(path)
        _sync_folder(path.parent)


@contextmanager
def rotation_lock(path: Path) -> Iterator[None]:
    """Exclude other rotations, which could overwrite a key that secrets are already encrypted with.

    The kernel releases the lock however the process ends. Raises `Conflict` while another process has it.
    """
    with _file_errors():
        # A file of its own, because a rotation replaces the key file.
        descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict("Another key rotation is running; wait until it has finished.") from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _file_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise SecretUnreadable(f"The key file in SPINE_HOME cannot be read or written ({reason}).") from error


@contextmanager
def _temporary_key_file(path: Path, keys: list[str]) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            # `mkstemp` creates files that only the owner may read.
            file.write("\n".join(keys) + "\n")
            file.flush()
            os.fsync(handle)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fernet(keys: list[str]) -> MultiFernet:
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        raise ValueError("a key must be 32 random bytes in URL-safe base64, as Fernet.generate_key() returns") from None


def _version_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
