"""Which files a warm interpreter was made from, and whether they are still the same.

A file's signature is its change time in nanoseconds, size and inode; that of a path that ends in a slash is which
folder it is, whatever is in it. None stands for a file that is not there.
"""

import os
import sys
import sysconfig
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

Signatures = dict[str, list[int] | None]

# Prefect reads its settings from these, in the working directory.
_SETTINGS = ("prefect.toml", ".env", "pyproject.toml")
# A file system's clock may be this much behind.
_CLOCK_STEP_NANOSECONDS = 20_000_000
_NEVER = [-1, -1, -1]


def signature(path: str) -> list[int] | None:
    """The signature of a file as it is now."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if path.endswith("/"):
        return [found.st_dev, found.st_ino]
    return [found.st_ctime_ns, found.st_size, found.st_ino]


def changed(signatures: Signatures) -> str | None:
    """The first file that is not as it was."""
    return next((path for path, known in signatures.items() if signature(path) != known), None)


def signatures(paths: Iterable[str], read_since: int) -> Signatures:
    """The signatures of files that were read from the time `read_since` on, in nanoseconds.

    One that has changed since then counts as changed: what was read of it may be what was there before.
    """
    found = {path: signature(path) for path in paths}
    unsettled = read_since - _CLOCK_STEP_NANOSECONDS
    return {path: _NEVER if known and known[0] >= unsettled else known for path, known in found.items()}


def working_directory(path: str) -> Signatures:
    """Which folder this process works in, under the name that it was given: another may take its place."""
    return {f"{path}/": signature("./")}


def of_interpreter(directory: str) -> set[str]:
    """What decides how Prefect and the installed packages behave: the folders of packages and Prefect's settings.

    Prefect is to be imported before.
    """
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    packages = {path for path in sys.path if f"{path}/".startswith(_installed()) and os.path.isdir(path)}
    of_prefect = {str(settings.profiles_path), str(settings.logging.config_path)}
    return packages | of_prefect | {os.path.join(directory, name) for name in _SETTINGS}


def of_modules() -> set[str]:
    """The files of all modules that belong to no installed package."""
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
