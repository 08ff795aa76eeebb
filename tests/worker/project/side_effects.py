"""A flow whose module has side effects when it is imported that each run needs for itself."""

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
def side_effects(path: str) -> None:
    """Record when the module was imported and whether its thread is running."""
    facts = {"imported": IMPORTED, "ticking": ticking.is_alive(), "parent": os.getppid()}
    Path(path).write_text(json.dumps(facts) + "\n")
