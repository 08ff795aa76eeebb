"""The keys that stored secrets are encrypted with: from `SPINE_SECRET_KEY`, or from a generated file in the home."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from spine.errors import Conflict, Unavailable
from spine.settings import Settings

KEY_FILE = "secret-key"


class SecretUnreadable(Unavailable):
    """A stored secret was encrypted with a key that is not here."""


class Keyring:
    """Encrypts with the newest key and decrypts with any."""

    def __init__(self, keys: list[str], path: Path | None = None) -> None:
        self._path = path
        # Not yet seen: the file may have changed since `keys` were read, so the first use reads it once more.
        self._seen: tuple[int, int] | None = None
        self._fernet = _fernet(keys)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Keyring":
        """The keys of `SPINE_SECRET_KEY`, or those of the key file, which is made if it is not there.

        Raises `SecretUnreadable` for a key file that cannot be used.
        """
        if settings.secret_key is not None:
            return cls(split_keys(settings.secret_key.get_secret_value()))
        path = settings.home.absolute() / KEY_FILE
        ensure_key_file(path)
        return cls(read_key_file(path), path)

    def encrypt(self, text: str) -> str:
        """The token to store for a secret."""
        self._read_again_if_changed()
        return self._fernet.encrypt(text.encode()).decode()

    def decrypt(self, token: str) -> str:
        """The secret that a token stands for. Raises `SecretUnreadable`."""
        self._read_again_if_changed()
        with suppress(InvalidToken):
            return self._fernet.decrypt(token.encode()).decode()
        try:
            # A file that was written over in place may look unchanged.
            self._read_again()
            return self._fernet.decrypt(token.encode()).decode()
        except InvalidToken:
            raise SecretUnreadable(
                "A stored secret cannot be read with the present SPINE_SECRET_KEY or key file; "
                "restore the key it was made with."
            ) from None

    def _read_again_if_changed(self) -> None:
        """A rotation reaches processes that are running: they look whether the file is another one."""
        if self._path is not None and _stamp(self._path) not in (None, self._seen):
            self._read_again()

    def _read_again(self) -> None:
        if self._path is not None:
            # Taken before the content: a file that changes in between is read once more the next time.
            stamp = _stamp(self._path)
            self._fernet, self._seen = _fernet(read_key_file(self._path)), stamp


def split_keys(text: str) -> list[str]:
    """Fernet keys that are separated by commas or lines, newest first. Raises `ValueError`, without showing them."""
    keys = [key.strip() for key in text.replace("\n", ",").split(",") if key.strip()]
    if not keys:
        raise ValueError("no secret key is given")
    _fernet(keys)
    return keys


def ensure_key_file(path: Path) -> None:
    """Make the key file, unless it is there; of several processes that do this at once, one makes it."""
    with _file_errors():
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with _written_beside(path, [Fernet.generate_key().decode()]) as written, suppress(FileExistsError):
            # A link is made only where nothing is yet, and shows the whole file at once.
            os.link(written, path)
        _make_durable(path.parent)


def read_key_file(path: Path) -> list[str]:
    """The keys in a file, newest first. Raises `SecretUnreadable`."""
    with _file_errors():
        try:
            return split_keys(path.read_text())
        except ValueError as reason:
            raise SecretUnreadable(f"The key file cannot be used: {reason}; restore it.") from None


def replace_key_file(path: Path, keys: list[str]) -> None:
    """Put other keys into the file, all at once, and so that a power cut does not bring the old ones back."""
    with _file_errors():
        with _written_beside(path, keys) as written:
            written.replace(path)
        _make_durable(path.parent)


@contextmanager
def only_rotation(path: Path) -> Iterator[None]:
    """Be the only one that changes the key file; a key that another rotation overwrites would take secrets with it.

    The kernel lets go of it however the process ends. Raises `Conflict` while another process holds it.
    """
    with _file_errors():
        # Beside the key file, which a rotation replaces.
        descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict("Another rotation is going on; wait until it has ended.") from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _file_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise SecretUnreadable(f"The key file in Spine's home cannot be read or written ({reason}).") from error


@contextmanager
def _written_beside(path: Path, keys: list[str]) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            # Only the owner may read it: that is how `mkstemp` makes files.
            file.write("\n".join(keys) + "\n")
            file.flush()
            os.fsync(handle)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _make_durable(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fernet(keys: list[str]) -> MultiFernet:
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        raise ValueError(
            "a secret key is 32 random bytes in URL-safe base64, as Fernet.generate_key() makes them"
        ) from None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
