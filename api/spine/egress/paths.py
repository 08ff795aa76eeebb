"""Which files of this machine users may name: those below SPINE_FILE_ROOTS, and never those of Spine itself."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.settings import Settings

# Devices, and what the kernel shows of processes: their environment, memory and open files.
SYSTEM_FOLDERS = (Path("/proc"), Path("/sys"), Path("/dev"))


class ClosedPaths:
    """Files and directories under every name that they have; a pattern can match thousands of files to compare."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._real = _resolved(paths)
        self._identities = {found for path in paths if (found := _identity(path)) is not None}

    def contain(self, real: Path) -> bool:
        """Whether a path without links is one of them, or below one."""
        if any(real.is_relative_to(path) for path in self._real):
            return True
        if any(_identity(part) in self._identities for part in (real, *real.parents)):
            return True
        with suppress(OSError):
            if real.is_file() and real.stat().st_nlink > 1:
                return any(_identity(real) in _identities_in(path) for path in self._paths)
        return False


@dataclass(frozen=True)
class FileRoots:
    """The directories whose files users may read, and files and directories that stay closed even inside of them."""

    open: Sequence[Path]
    closed: Sequence[Path] = ()

    @classmethod
    def of(cls, settings: Settings) -> "FileRoots":
        """The roots in the settings; Spine's state, secrets and the system's own folders are closed."""
        return cls(settings.file_roots, [*state_paths(settings), *settings.secret_folders, *SYSTEM_FOLDERS])

    def with_folder(self, folder: Path) -> "FileRoots":
        """These roots and one more."""
        return FileRoots((*self.open, folder), self.closed)

    def absolute(self, path: str) -> str:
        """The path or pattern, absolute. Raises `FetchFailure` if it is not below a root; links are not followed."""
        return os.path.normpath(os.path.join(*self.split(path)))

    def split(self, path: str) -> tuple[Path, str]:
        """The root that contains a path or pattern, and the rest of the path. Raises `FetchFailure` as `absolute`."""
        if not self.open:
            sentence = "File sources and SQLite files are disabled because SPINE_FILE_ROOTS is not set."
            raise FetchFailure(ErrorCategory.CONFIG, sentence)
        if ".." in Path(path).parts:
            raise FetchFailure(ErrorCategory.CONFIG, f"{path} must not contain '..'.")
        if os.path.isabs(path):
            # A root may be named through a link, or by its real path.
            named = [*(root.absolute() for root in self.open), *_resolved(self.open)]
            root = next((root for root in named if Path(path).is_relative_to(root)), None)
            if root is None:
                raise outside_of_roots(path)
            self._check_spelling(path)
            return root, str(Path(path).relative_to(root))
        if len(self.open) > 1:
            sentence = f"{path} must be absolute because SPINE_FILE_ROOTS has more than one directory."
            raise FetchFailure(ErrorCategory.CONFIG, sentence)
        root = self.open[0].absolute()
        self._check_spelling(str(root / path))
        return root, str(Path(path))

    def root_of(self, real: Path, shown: str) -> Path:
        """The root that contains `real`, a path without links. Raises `FetchFailure`, which shows the path as `shown`.

        It is refused if it is closed, also where another mount or a hard link shows it at another place.
        """
        root = next((root for root in _resolved(self.open) if real.is_relative_to(root)), None)
        if root is None:
            raise outside_of_roots(shown)
        if self._closed_paths.contain(real):
            raise _closed(shown)
        return root

    @cached_property
    def _closed_paths(self) -> ClosedPaths:
        return ClosedPaths(self.closed)

    def _check_spelling(self, path: str) -> None:
        plain = Path(os.path.normpath(path))
        if any(plain.is_relative_to(folder) for folder in (*(one.absolute() for one in self.closed), *SYSTEM_FOLDERS)):
            raise _closed(path)


def state_paths(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Where Spine and Prefect keep their state: homes, results, and a SQLite file or a cache outside of the home."""
    found = [settings.home, Path(os.path.expanduser(environ.get("PREFECT_HOME") or "~/.prefect"))]
    for name in ("PREFECT_LOCAL_STORAGE_PATH", "PREFECT_RESULTS_LOCAL_STORAGE_PATH"):
        if environ.get(name):
            found.append(Path(os.path.expanduser(environ[name])))
    if environ.get("SPINE_SETTINGS_FILE"):
        found.append(Path(environ["SPINE_SETTINGS_FILE"]).parent)
    of_prefect = [environ.get(f"PREFECT_{name}_DATABASE_CONNECTION_URL", "") for name in ("SERVER", "API")]
    for database in (settings.sqlalchemy_url.render_as_string(hide_password=False), *of_prefect):
        found += _files_of_sqlite(database)
    if settings.cache_url:
        parts = urlsplit(settings.cache_url)
        if parts.scheme in ("", "file", "local"):
            found.append(Path(parts.path or parts.netloc))
    return [path.absolute() for path in found]


def _files_of_sqlite(url: str) -> list[Path]:
    scheme, _, place = url.partition(":///")
    name = place.partition("?")[0]
    if not scheme.startswith("sqlite") or not name:
        return []
    return [Path(f"{unquote(name)}{ending}") for ending in ("", "-wal", "-shm", "-journal")]


def outside_of_roots(path: str) -> FetchFailure:
    """The failure for a path that no root contains."""
    return FetchFailure(ErrorCategory.CONFIG, f"{path} is outside the directories allowed by SPINE_FILE_ROOTS.")


def _closed(path: str) -> FetchFailure:
    sentence = f"{path} is in a directory of Spine's state, its secrets or the system, which is never readable."
    return FetchFailure(ErrorCategory.CONFIG, sentence)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _identities_in(folder: Path) -> set[tuple[int, int] | None]:
    """The files directly in a folder: keys and databases."""
    with suppress(OSError):
        return {_identity(entry) for entry in folder.iterdir() if entry.is_file()}
    return set()


def _resolved(folders: Sequence[Path]) -> list[Path]:
    return [Path(os.path.realpath(folder)) for folder in folders]
