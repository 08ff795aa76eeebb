"""The command `spine doctor`."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import ArgumentError

from spine.doctor.findings import Finding, down, json_of, lines_of, worst
from spine.doctor.machine import check_disk, check_state_folder
from spine.doctor.redis_server import check_redis
from spine.doctor.variables import check_variables, settings_problem
from spine.errors import SpineError
from spine.own_settings import own_settings
from spine.settings import Settings
from spine.up.home import credential_path, prefect_url_path

_SETTINGS = "Change the variable; deployments/README.md lists all of them."


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    worker: Annotated[
        bool, typer.Option("--worker", help="Check only what a worker needs, where the worker runs.")
    ] = False,
) -> None:
    """Check each part of Spine and what it needs. Exit code 1 if a part is down, 0 if one only needs attention.

    Uses the settings of the environment: run it where the API runs, and with --worker where a worker runs. Without
    PREFECT_API_URL it checks the Prefect that the last `spine up` in SPINE_HOME has used.
    """
    findings = _findings(worker)
    for line in [json_of(findings)] if as_json else lines_of(findings):
        typer.echo(line)
    if worst(findings) == "down":
        raise typer.Exit(1)


def _findings(worker: bool) -> list[Finding]:
    try:
        settings = own_settings()
        _ = settings.sqlalchemy_url
    except SpineError as error:
        return [down("settings", error.detail, _SETTINGS)]
    except (ValueError, ArgumentError) as error:
        return [down("settings", settings_problem(error), _SETTINGS)]
    _use_prefect_of(settings.home)
    found = [check_variables(settings), check_state_folder(settings.home), check_disk(settings)]
    return [*found, *check_redis(os.environ), *_services(settings, worker)]


def _use_prefect_of(home: Path) -> None:
    """Use the Prefect of the last `spine up`, unless the environment has another. Prefect is not imported yet."""
    url = prefect_url_path(home)
    if "PREFECT_API_URL" in os.environ or not url.is_file():
        return
    os.environ["PREFECT_API_URL"] = url.read_text().strip()
    # Its results are there, and what a check writes among them is for this user only.
    os.environ.setdefault("PREFECT_HOME", str(home.absolute() / "prefect"))
    os.umask(0o077)
    if credential_path(home).is_file():
        os.environ.setdefault("PREFECT_API_AUTH_STRING", credential_path(home).read_text().strip())


def _services(settings: Settings, worker: bool) -> list[Finding]:
    # Imported here: Prefect reads its settings when it is imported.
    from spine.doctor.services import check_services

    try:
        return asyncio.run(check_services(settings, worker))
    except ValueError as error:
        return [down("prefect", f"{error}.", "Set PREFECT_API_URL, or start Spine with `spine up`.")]
