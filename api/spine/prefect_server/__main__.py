"""Start Prefect's server in this process, with waits for SQLite's write lock on the event loop."""

import sys

from prefect.cli import app

from spine.prefect_server.sqlite_waits import install_sqlite_waits

if __name__ == "__main__":
    if missing := install_sqlite_waits():
        print(
            f"Prefect has no {', '.join(missing)}: its server starts without Spine's waits for SQLite's lock.",
            file=sys.stderr,
        )
    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    app()
