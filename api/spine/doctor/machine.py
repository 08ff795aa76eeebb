"""Checks of this machine: the state folder and the free space."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from spine.doctor.findings import Finding, degraded, down, up
from spine.private_files import open_to_others
from spine.settings import Settings

# In bytes. Below the first one attention is needed; below the second one SQLite and the cache soon cannot write.
LITTLE_SPACE = 2 * 1024**3
NO_SPACE = 200 * 1024**2


def check_state_folder(home: Path) -> Finding:
    """Whether only this user can read the state folder."""
    name, found = "state_folder", open_to_others(home)
    if not found:
        return up(name, f"only this user can read {home.absolute()}")
    return degraded(
        name,
        f"other users can read or own {len(found)} files and folders in {home.absolute()}, for example {found[0]}",
        "Start spine up or the API again: it closes them, or says why it cannot.",
    )


def check_disk(settings: Settings) -> Finding:
    """How much space is left where Spine writes."""
    free, place = min((shutil.disk_usage(folder).free, folder) for folder in _folders(settings))
    detail = f"{free / 1024**3:.1f} GB free at {place}"
    advice = "Make space, or set SPINE_CACHE_MAX_BYTES; `spine.prune` deletes old alerts and cache entries."
    if free < NO_SPACE:
        return down("disk", detail, advice)
    return degraded("disk", detail, advice) if free < LITTLE_SPACE else up("disk", detail)


def _folders(settings: Settings) -> Iterator[Path]:
    """The folders that Spine writes to, or those above them that exist."""
    wanted = [settings.home.absolute()]
    if settings.cache_url and "://" not in settings.cache_url:
        wanted.append(Path(settings.cache_url).absolute())
    for folder in wanted:
        yield next(place for place in (folder, *folder.parents) if place.exists())
