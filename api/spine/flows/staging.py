"""Intermediate files of a flow run. They outlive a failed step, so that a retry can continue from them."""

import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from spine.private_files import make_private_folder

KEEP_SECONDS = 7 * 24 * 3600
"""How long the files of a run are kept, for a retry or to investigate a failure, unless the run removes them."""


class StagingLost(RuntimeError):
    """Files that an earlier step of the run has staged are missing; that step must run again."""


def directory_of(home: Path) -> Path:
    """The directory that has one directory of intermediate files for each flow run."""
    return home.absolute() / "staging"


def fresh(folder: Path) -> Path:
    """Make ``folder`` an empty folder, without the files of an earlier attempt of the step."""
    shutil.rmtree(folder, ignore_errors=True)
    make_private_folder(folder.parent)
    folder.mkdir(mode=0o700)
    return folder


def require(files: Iterable[Path], retry_from: str) -> None:
    """Raise `StagingLost` unless all ``files`` exist; ``retry_from`` is the step that stages them again."""
    for file in files:
        if not file.is_file():
            raise StagingLost(
                f"The staged file {file} of an earlier step is missing (removed after publication, or on another "
                f"machine); retry the run from step '{retry_from}'."
            )


def clear(folder: Path) -> None:
    """Remove the folder of a run that has published, and folders of other runs that are older than a week."""
    shutil.rmtree(folder, ignore_errors=True)
    remove_old(folder.parent)


def keep(folder: Path) -> None:
    """Create the folder of a run if necessary, and restart the week after which it is removed."""
    make_private_folder(folder)
    os.utime(folder)


def remove_old(folders: Path) -> None:
    """Remove the folders of runs below ``folders`` that were not kept for a week; safe to run in several processes."""
    if not folders.is_dir():
        return
    oldest = time.time() - KEEP_SECONDS
    for other in folders.iterdir():
        with suppress(FileNotFoundError):
            if other.is_dir() and other.stat().st_mtime < oldest:
                shutil.rmtree(other, ignore_errors=True)
