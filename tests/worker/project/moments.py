"""A flow whose module does at its import what each run has to have done for itself."""

import json
import os
import threading
import time
from pathlib import Path

from prefect import flow

IMPORTED = time.time_ns()
ticking = threading.Thread(target=time.sleep, args=(5,), daemon=True, name="ticking")
ticking.start()


@flow
def moments(path: str) -> None:
    """Tell when it was imported and whether the thread is there."""
    facts = {"imported": IMPORTED, "ticking": ticking.is_alive(), "parent": os.getppid()}
    Path(path).write_text(json.dumps(facts) + "\n")
