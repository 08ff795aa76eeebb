"""A flow that records what code observes while it is imported and in a run."""

import json
from pathlib import Path

from observed import drawn, observed, observed_of_run  # type: ignore[import-not-found]
from prefect import flow

AT_IMPORT = observed()


@flow
def observes(path: str) -> None:
    """Record everything."""
    in_run = observed() | observed_of_run()
    Path(path).write_text(json.dumps({"import": AT_IMPORT, "run": in_run, "drawn": drawn()}) + "\n")
