"""Files of this machine that a parameter of a flow names: they obey the same rules as those of file sources."""

import os
import stat
from pathlib import Path

from spine.egress.fetch_failure import FetchFailure
from spine.egress.paths import FileRoots
from spine.own_settings import own_settings


def allowed_file(path: str, *, also: Path | None = None) -> Path:
    """The regular file at `path`, which must be below SPINE_FILE_ROOTS or `also`, as a path without links.

    A relative path begins at the working directory of the run, or else at the only root. Raises `PermissionError` for
    any other path, before the file system shows whether it exists, and `FileNotFoundError`.
    """
    configured = FileRoots.of(own_settings())
    roots = configured.with_folder(also) if also is not None else configured
    starts = [Path.cwd(), *(configured.open if len(configured.open) == 1 else ())]
    allowed = False
    refusal = f"{path!a} is not a path."
    for place in [start.absolute() / path for start in starts] if path.isprintable() else []:
        try:
            roots.absolute(str(place))
            real = Path(os.path.realpath(place))
            roots.root_of(real, path)
        except FetchFailure as failure:
            refusal = failure.sentence
            continue
        allowed = True
        if _is_regular(real):
            return real
    if allowed:
        raise FileNotFoundError(f"The file {path} was not found, or is not a regular file.")
    raise PermissionError(refusal)


def _is_regular(real: Path) -> bool:
    try:
        return stat.S_ISREG(real.lstat().st_mode)
    except OSError:
        return False
