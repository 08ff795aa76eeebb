"""Which paths of this machine users may name: those below the directories in SPINE_FILE_ROOTS."""

import os
from collections.abc import Sequence
from pathlib import Path

from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory


def absolute_path(path: str, roots: Sequence[Path]) -> str:
    """The path or pattern, absolute. Raises `FetchFailure` if it is not below a root; links are not followed here."""
    return os.path.normpath(os.path.join(*split_at_root(path, roots)))


def split_at_root(path: str, roots: Sequence[Path]) -> tuple[Path, str]:
    """The root that contains a path or pattern, and the rest of the path. Raises `FetchFailure` as `absolute_path`."""
    if not roots:
        sentence = "File sources and SQLite files are disabled because SPINE_FILE_ROOTS is not set."
        raise FetchFailure(ErrorCategory.CONFIG, sentence)
    if ".." in Path(path).parts:
        raise FetchFailure(ErrorCategory.CONFIG, f"{path} must not contain '..'.")
    if os.path.isabs(path):
        # A root may be named through a link, or by its real path.
        named = [*(root.absolute() for root in roots), *_resolved(roots)]
        root = next((root for root in named if Path(path).is_relative_to(root)), None)
        if root is None:
            raise outside_of_roots(path)
        return root, str(Path(path).relative_to(root))
    if len(roots) > 1:
        sentence = f"{path} must be absolute because SPINE_FILE_ROOTS has more than one directory."
        raise FetchFailure(ErrorCategory.CONFIG, sentence)
    return roots[0].absolute(), str(Path(path))


def resolved_root_of(real: Path, roots: Sequence[Path]) -> Path | None:
    """The root that contains `real`, a path without links; None if no root does."""
    return next((root for root in _resolved(roots) if real.is_relative_to(root)), None)


def outside_of_roots(path: str) -> FetchFailure:
    """The failure for a path that no root contains."""
    return FetchFailure(ErrorCategory.CONFIG, f"{path} is outside the directories allowed by SPINE_FILE_ROOTS.")


def _resolved(roots: Sequence[Path]) -> list[Path]:
    return [Path(os.path.realpath(root)) for root in roots]
