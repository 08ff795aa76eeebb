"""Checks of the environment: names that nothing reads, and values that contradict each other."""

import difflib
import os
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from pydantic import ValidationError

from spine.doctor.findings import Finding, degraded, up
from spine.own_settings import SETTINGS_FILE, variable_of
from spine.settings import Settings

# Variables that others than `Settings` read.
_OTHERS = {
    *(SETTINGS_FILE, "SPINE_PREFECT_HOSTS", "SPINE_WAREHOUSE_URL", "SPINE_UP_DATABASE", "SPINE_UP_CHILD_OF"),
    *("SPINE_WORKER_WARM_FLOWS", "SPINE_WORKER_GRACE_SECONDS"),
}
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "")


def check_variables(settings: Settings, environ: Mapping[str, str] = os.environ) -> Finding:
    """Typing errors in the names of variables, and contradictions between values. No value is shown."""
    problems = [*_typing_errors(settings, environ), *_contradictions(settings, environ)]
    if not problems:
        return up("settings", f"{sum(name.startswith('SPINE_') for name in environ)} variables of Spine are set")
    return degraded(
        "settings", "; ".join(problems), "Change or remove these variables; deployments/README.md lists all of them."
    )


def settings_problem(error: Exception) -> str:
    """Why the settings cannot be used, in one sentence without their values."""
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        name = variable_of("_".join(str(part) for part in first["loc"])) if first["loc"] else "the settings"
        return f"{name} cannot be used: {first['msg'].removeprefix('Value error, ')}"
    return str(error) if isinstance(error, ValueError) else "SPINE_DATABASE_URL is not a URL"


def _typing_errors(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    known = {variable_of(field) for field in Settings.model_fields} | _OTHERS
    references = tuple(pattern.rstrip("*") for pattern in settings.secret_env)
    for name in sorted(environ):
        if name.startswith("SPINE_") and name not in known and not name.startswith(references):
            like = difflib.get_close_matches(name, known, n=1)
            yield f"nothing reads {name}" + (f" (is it {like[0]}?)" if like else "")


def _contradictions(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    credentials = {environ.get(f"PREFECT_{part}API_AUTH_STRING") for part in ("", "SERVER_")} - {None, ""}
    if len(credentials) > 1:
        yield "PREFECT_API_AUTH_STRING and PREFECT_SERVER_API_AUTH_STRING differ"
    url = environ.get("PREFECT_API_URL", "")
    if url and not urlsplit(url).path.rstrip("/").endswith("/api"):
        yield "PREFECT_API_URL does not end in /api"
    broker = environ.get("PREFECT_MESSAGING_BROKER", "").startswith("prefect_redis")
    if broker != environ.get("PREFECT_SERVER_DOCKET_URL", "").startswith("redis"):
        yield "only one of PREFECT_MESSAGING_BROKER and PREFECT_SERVER_DOCKET_URL uses Redis"
    for folder in settings.file_roots:
        if not folder.is_dir():
            yield f"SPINE_FILE_ROOTS has {folder}, which is not a folder here"
    if url and urlsplit(url).hostname not in _LOOPBACK and settings.database_url is not None:
        if settings.secret_key is None:
            yield "SPINE_SECRET_KEY is not set, so processes on other machines cannot decrypt what this one stores"
        if not settings.cache_url:
            yield "SPINE_CACHE_URL is not set, so each machine has a cache of its own"
