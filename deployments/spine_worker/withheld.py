"""The variables of a worker that its runs do not get: Spine's secrets and those of Prefect's server.

A worker gives its environment to every run, and from there it reaches crash reports, logs and child processes. A worker
that `spine up` starts has none of these variables. One that was started with them withholds them. Spine's own flows and
`read_source` need some; these they read from a private file, which `SPINE_SETTINGS_FILE` names.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import prefect.settings
from prefect.settings import get_current_settings, temporary_settings

SPINE_SECRETS = ("SPINE_API_KEY", "SPINE_DATABASE_URL", "SPINE_SECRET_KEY", "SPINE_CACHE_URL")
# Names that end in an underscore are prefixes.
PREFECT_SERVER_SECRETS = (
    *("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_DATABASE_", "PREFECT_API_DATABASE_"),
    *("PREFECT_SERVER_DOCKET_URL", "PREFECT_REDIS_"),
)
SETTINGS_FILE = "SPINE_SETTINGS_FILE"
PROTECTED = "SPINE_PROTECTED_ENDPOINTS"
_PORTS = {"postgresql": 5432, "postgres": 5432, "redis": 6379, "rediss": 6379}
# No flow calls the API as an administrator.
_FOR_NO_FLOW = "SPINE_API_KEY"


def is_withheld(name: str) -> bool:
    """Whether runs do not get this variable of the worker."""
    names = (*SPINE_SECRETS, *PREFECT_SERVER_SECRETS)
    return name in names or name.startswith(tuple(one for one in names if one.endswith("_")))


@contextmanager
def withholding() -> Iterator[None]:
    """Take these variables out of the environment and out of Prefect's settings, and keep Spine's in a private file."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if is_withheld(name)}
    for_spine = {name: value for name, value in taken.items() if name in SPINE_SECRETS and name != _FOR_NO_FLOW}
    # Prefect has read its variables already, and turns its settings into variables of each run. Of those that have a
    # default, such as `memory://` for Docket, each run gets the default.
    known = get_current_settings().to_environment_variables(exclude_unset=True)
    settings = [getattr(prefect.settings, name) for name in known if is_withheld(name)]
    before = os.environ.get(PROTECTED)
    if places := [one for one in (before or "", *_places(taken)) if one]:
        os.environ[PROTECTED] = ",".join(places)
    try:
        with temporary_settings(restore_defaults=settings), _in_a_file(for_spine):
            yield
    finally:
        os.environ.pop(PROTECTED, None)
        os.environ.update(taken if before is None else {**taken, PROTECTED: before})


def _places(variables: Mapping[str, str]) -> list[str]:
    """The host and port of each service that these variables name: runs do not know its URL, and may not reach it."""
    found: dict[str, None] = {}
    # Spine's own are in its file.
    for url in (value for name, value in variables.items() if name.startswith("PREFECT_")):
        with suppress(ValueError):
            parts = urlsplit(url)
            default = _PORTS.get(parts.scheme.partition("+")[0])
            if default is not None and (name := parts.hostname):
                found[f"[{name}]:{parts.port or default}" if ":" in name else f"{name}:{parts.port or default}"] = None
    if redis := variables.get("PREFECT_REDIS_MESSAGING_HOST"):
        found[f"{redis}:{variables.get('PREFECT_REDIS_MESSAGING_PORT', _PORTS['redis'])}"] = None
    return list(found)


@contextmanager
def _in_a_file(variables: Mapping[str, str]) -> Iterator[None]:
    """Write these variables to a file that only this user may read, and name it in the environment."""
    if not variables:
        yield
        return
    before = os.environ.get(SETTINGS_FILE)
    # `TemporaryDirectory` makes folders that only this user may open.
    with tempfile.TemporaryDirectory(prefix="spine-worker-") as folder:
        path = Path(folder) / "settings.json"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({**_read(before), **variables}, file)
        os.environ[SETTINGS_FILE] = str(path)
        try:
            yield
        finally:
            os.environ.pop(SETTINGS_FILE, None)
            if before is not None:
                os.environ[SETTINGS_FILE] = before


def _read(path: str | None) -> dict[str, str]:
    """What a file that the operator has named contains; the variables of the worker come before it."""
    return dict(json.loads(Path(path).read_text())) if path else {}
