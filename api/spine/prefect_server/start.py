"""Starts Prefect's server in this process, with waits for SQLite's write lock on the event loop, and closed doors."""

import sys
from typing import Any

import prefect.server.api.server
from prefect.cli import app
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

from spine.prefect_server.doors import behind_doors
from spine.prefect_server.engine_line import engine_line
from spine.prefect_server.event_writes import install_event_writes
from spine.prefect_server.migrations import begin_migrations
from spine.prefect_server.request_limits import install_request_limits
from spine.prefect_server.schema_checks import install_schema_checks
from spine.prefect_server.sqlite_waits import install_sqlite_waits
from spine.prefect_server.versions import refusal


def start(arguments: list[str]) -> None:
    """Serve until a signal; `arguments` are the options of `prefect server start`.

    Exits with an error if the server would not do its work with the installed versions.
    """
    if reason := refusal():
        sys.exit(f"Error: {reason}")
    if not _report(install_sqlite_waits(), "Spine's waits for SQLite's lock"):
        begin_migrations()
    _report(install_request_limits(), "places for more than fifty runs at once on SQLite")
    _report(install_event_writes(), "faster writes of events on SQLite")
    _report(install_schema_checks(), "a memory of the JSON schemas that are valid")
    print(engine_line(PREFECT_API_DATABASE_CONNECTION_URL.value()), flush=True)
    close_doors(host_of(arguments))
    sys.argv = ["prefect", "server", "start", *arguments]
    app()


def _report(missing: list[str], without: str) -> bool:
    """Print which private names of Prefect were not found; return whether there are any."""
    if missing:
        print(f"Prefect has no {', '.join(missing)}: its server starts without {without}.", file=sys.stderr)
    return bool(missing)


def close_doors(host: str | None) -> None:
    """Let Prefect start its application behind the checks of `doors`."""
    create_app = prefect.server.api.server.create_app

    def create_closed_app(*args: Any, **options: Any) -> Any:
        app = create_app(*args, **options)
        # Without arguments it is for Prefect's own calls within this process, such as the actions of automations.
        return behind_doors(app, host) if args or options else app

    prefect.server.api.server.create_app = create_closed_app


def host_of(arguments: list[str]) -> str | None:
    """The value of the option `--host`."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--host":
            return value if equals else next(iter(arguments[place + 1 :]), None)
    return None
