"""Start Prefect's server in this process, with waits for SQLite's write lock on the event loop, and closed doors."""

import sys
from typing import Any

import prefect.server.api.server
from prefect.cli import app

from spine.prefect_server.doors import behind_doors
from spine.prefect_server.sqlite_waits import install_sqlite_waits


def close_doors(host: str | None) -> None:
    """Let Prefect start its application behind the checks of `doors`."""
    create_app = prefect.server.api.server.create_app

    def create_closed_app(*args: Any, **options: Any) -> Any:
        return behind_doors(create_app(*args, **options), host)

    prefect.server.api.server.create_app = create_closed_app


def host_of(arguments: list[str]) -> str | None:
    """The value of the option `--host`."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--host":
            return value if equals else next(iter(arguments[place + 1 :]), None)
    return None


if __name__ == "__main__":
    if missing := install_sqlite_waits():
        print(
            f"Prefect has no {', '.join(missing)}: its server starts without Spine's waits for SQLite's lock.",
            file=sys.stderr,
        )
    close_doors(host_of(sys.argv[1:]))
    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    app()
