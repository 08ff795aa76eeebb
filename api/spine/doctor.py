"""`spine doctor`: what `/health/ready` checks, and who can read the state folder, without a running API."""

import asyncio
import os
from pathlib import Path
from typing import NoReturn

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from spine.database import make_engine, make_sessions
from spine.errors import SpineError
from spine.own_settings import own_settings
from spine.private_files import open_to_others
from spine.settings import Settings
from spine.up.home import credential_path, prefect_url_path

# The state of a part, and a sentence about it.
Found = tuple[str, str]

_MARKS = {"up": "✓", "degraded": "!", "down": "✗"}


def doctor() -> None:
    """Check each part of Spine and what it needs. Exit code 1 if a part is down, 0 if one only needs attention.

    Uses the settings of the environment. Without PREFECT_API_URL it checks the Prefect that the last `spine up` in
    SPINE_HOME has used.
    """
    try:
        settings = own_settings()
        _use_prefect_of(settings.home)
        found = {"state_folder": _check_state_folder(settings.home), **_check_components(settings)}
    except SpineError as error:
        _fail(error.detail)
    except ValueError as error:
        _fail(f"{error}.")
    for name, (state, detail) in found.items():
        typer.echo(f"{_MARKS[state]} {name:<14} {detail}")
    if any(state == "down" for state, _ in found.values()):
        raise typer.Exit(1)


def _fail(reason: str) -> NoReturn:
    typer.echo(f"Error: {reason}", err=True)
    raise typer.Exit(1)


def _use_prefect_of(home: Path) -> None:
    """Use the Prefect of the last `spine up`, unless the environment has another. Prefect is not imported yet."""
    url = prefect_url_path(home)
    if "PREFECT_API_URL" in os.environ or not url.is_file():
        return
    os.environ["PREFECT_API_URL"] = url.read_text().strip()
    if credential_path(home).is_file():
        os.environ.setdefault("PREFECT_API_AUTH_STRING", credential_path(home).read_text().strip())


def _check_components(settings: Settings) -> dict[str, Found]:
    url = settings.sqlalchemy_url
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        raise ValueError(
            f"There is no database at {url.database}; set SPINE_HOME or SPINE_DATABASE_URL, or run spine up"
        )
    return asyncio.run(_check_with(settings, make_engine(url)))


async def _check_with(settings: Settings, engine: AsyncEngine) -> dict[str, Found]:
    # Imported here: Prefect reads its settings when it is imported.
    from spine.health_checks import check_components
    from spine.prefect.client import Prefect

    try:
        async with Prefect.connect(settings.prefect_deadline_seconds) as prefect:
            components = await check_components(prefect, make_sessions(engine), settings)
    finally:
        await engine.dispose()
    return {name: (component.state, component.detail) for name, component in components}


def _check_state_folder(home: Path) -> Found:
    found = open_to_others(home)
    if not found:
        return "up", f"only this user can read {home.absolute()}"
    return "degraded", (
        f"other users can read or own {len(found)} files and folders in {home.absolute()}, for example {found[0]}; "
        "the next start of spine up or of the API closes them, or says why it cannot"
    )
