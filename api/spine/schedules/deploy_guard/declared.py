"""Which schedules a project's `prefect.yaml` declares `active: true`, if this machine can read the file.

`prefect deploy` replaces schedules without a slug by new, active ones, and Prefect's server does not know whether the
file says `active: true` or nothing. For a project on this machine, the deployment's pull step says where the file is.
"""

import posixpath
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from pydantic import TypeAdapter, ValidationError

from spine.prefect.client import Deployment, ScheduleRow

_LOCAL_PROJECT = "prefect.deployments.steps.set_working_directory"
_MOST_BYTES = 5_000_000
_INTERVAL = TypeAdapter(timedelta)

Declared = dict[str, Any]


def declared_active(deployment: Deployment) -> set[UUID]:
    """The schedules of this deployment for which the file literally says `active: true`.

    A file that is missing or invalid declares none. This reads a file: call it in a thread.
    """
    directory = _directory(deployment)
    if directory is None:
        return set()
    declared = _schedules(_entry(_read(directory / "prefect.yaml"), deployment))
    single = len(declared) == len(deployment.schedules) == 1
    return {
        row.id
        for row in deployment.schedules
        if any(one.get("active") is True and (single or _is_same(one, row)) for one in declared)
    }


def _directory(deployment: Deployment) -> Path | None:
    for step in deployment.pull_steps or []:
        options = step.get(_LOCAL_PROJECT)
        directory = options.get("directory") if isinstance(options, dict) else None
        if isinstance(directory, str) and Path(directory).is_absolute() and "\0" not in directory:
            return Path(directory)
    return None


def _read(path: Path) -> Any:
    try:
        # Opening a pipe or a device could block forever.
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return None
        return yaml.safe_load(path.read_text())
    except (OSError, ValueError, RecursionError, LookupError, AttributeError, TypeError, yaml.YAMLError):
        return None


def _entry(project: Any, deployment: Deployment) -> Declared:
    """The file's entry for this deployment; empty if it has none or several."""
    entries = project.get("deployments") if isinstance(project, dict) else None
    named = [
        entry
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
        and entry.get("name") == deployment.name
        and _normal(entry.get("entrypoint", deployment.entrypoint)) == _normal(deployment.entrypoint)
    ]
    return named[0] if len(named) == 1 else {}


def _normal(entrypoint: Any) -> str:
    return posixpath.normpath(str(entrypoint))


def _schedules(entry: Declared) -> list[Declared]:
    many = entry.get("schedules")
    found = [*(many if isinstance(many, list) else []), entry.get("schedule")]
    return [one for one in found if isinstance(one, dict)]


def _is_same(declared: Declared, row: ScheduleRow) -> bool:
    if declared.get("slug") or row.slug:
        return bool(declared.get("slug") == row.slug)
    if declared.get("timezone") not in (None, row.schedule.get("timezone")):
        return False
    if (declared.get("parameters") or {}) != row.parameters:
        return False
    if "interval" in declared:
        return bool(_seconds(declared["interval"]) == row.schedule.get("interval", -1))
    return any(name in declared and declared[name] == row.schedule.get(name) for name in ("cron", "rrule"))


def _seconds(interval: Any) -> float | None:
    try:
        return _INTERVAL.validate_python(interval).total_seconds()
    except ValidationError:
        return None
