"""Intermediate files of a flow run: they outlive a failed step, so that a retry can go on from them."""

import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

KEEP_SECONDS = 7 * 24 * 3600
"""How long the files of a run are kept, for a retry or for someone who looks into a failure, unless it removes them."""


class StagingLost(RuntimeError):
    """Files that an earlier step of the run had staged are gone; the earlier step has to run again."""


def fresh(folder: Path) -> Path:
    """Make ``folder`` exist and be empty: a step that runs again starts from nothing that its last attempt left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def require(files: Iterable[Path], retry_from: str) -> None:
    """Raise `StagingLost` unless all ``files`` are still there; ``retry_from`` names the step that stages them anew."""
    for file in files:
        if not file.is_file():
            raise StagingLost(
                f"The staged file {file} of an earlier step is gone (removed after publication, or left on another "
                f"machine); retry the run from step '{retry_from}'."
            )


def clear(folder: Path) -> None:
    """Remove the folder of a run that has published, and those that other runs left more than a week ago."""
    shutil.rmtree(folder, ignore_errors=True)
    remove_old(folder.parent)


def keep(folder: Path) -> None:
    """Let the week after which the folder of a run is removed begin now."""
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)


def remove_old(folders: Path) -> None:
    """Remove the folders of runs below ``folders`` that nobody has kept for a week; others may be at it, too."""
    if not folders.is_dir():
        return
    oldest = time.time() - KEEP_SECONDS
    for other in folders.iterdir():
        with suppress(FileNotFoundError):
            if other.is_dir() and other.stat().st_mtime < oldest:
                shutil.rmtree(other, ignore_errors=True)
