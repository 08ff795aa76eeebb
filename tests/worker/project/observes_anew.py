"""A flow that records what code observes while it is imported and in a run, and that each run imports for itself."""

import json
import os
from pathlib import Path

from observed import drawn, observed, observed_of_run  # type: ignore[import-not-found]
from prefect import flow

AT_IMPORT = observed()
os.urandom(1)  # Runs cannot share what is random.


@flow
def observes_anew(path: str) -> None:
    """Record everything."""
    in_run = observed() | observed_of_run()
    Path(path).write_text(json.dumps({"import": AT_IMPORT, "run": in_run, "drawn": drawn()}) + "\n")
