"""The files that a warm interpreter was made from, and whether they have changed since.

The signature of a file is its change time in nanoseconds, its size and its inode. The signature of a path that ends in
a slash identifies the directory, whatever it contains. None stands for a file that does not exist.
"""

import os
import sys
import sysconfig
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

Signatures = dict[str, list[int] | None]

# Prefect reads its settings from these files of the working directory.
_SETTINGS = ("prefect.toml", ".env", "pyproject.toml")
# The clock of a file system may be this much behind.
_CLOCK_STEP_NANOSECONDS = 20_000_000
_ALWAYS_CHANGED = [-1, -1, -1]


def signature(path: str) -> list[int] | None:
    """The current signature of a file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if path.endswith("/"):
        return [found.st_dev, found.st_ino]
    return [found.st_ctime_ns, found.st_size, found.st_ino]


def first_changed(signatures: Signatures) -> str | None:
    """The first file whose signature is no longer the given one."""
    return next((path for path, known in signatures.items() if signature(path) != known), None)


def signatures(paths: Iterable[str], read_since: int) -> Signatures:
    """The signatures of files that were read at or after the time `read_since`, in nanoseconds.

    A file that has changed since then counts as changed, because its earlier content may have been read.
    """
    found = {path: signature(path) for path in paths}
    unsettled = read_since - _CLOCK_STEP_NANOSECONDS
    return {path: _ALWAYS_CHANGED if known and known[0] >= unsettled else known for path, known in found.items()}


def directory_signature(path: str) -> Signatures:
    """The identity of this process' working directory under its given name, which may later name another directory."""
    return {f"{path}/": signature("./")}


def interpreter_files(directory: str) -> set[str]:
    """What decides how Prefect and the installed packages behave: the package directories and Prefect's settings.

    Import Prefect before.
    """
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    packages = {path for path in sys.path if f"{path}/".startswith(_installed()) and os.path.isdir(path)}
    of_prefect = {str(settings.profiles_path), str(settings.logging.config_path)}
    return packages | of_prefect | {os.path.join(directory, name) for name in _SETTINGS}


def project_module_files() -> set[str]:
    """The files of all imported modules that belong to no installed package."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return {str(Path(file).absolute()) for file in files if file and not is_installed(file)}


def is_installed(file: str) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    return file.startswith(_installed())


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    places = sysconfig.get_paths()
    found = {places[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(sorted(f"{place.rstrip('/')}/" for place in found))
