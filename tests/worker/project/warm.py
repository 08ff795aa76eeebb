"""A flow that records what it sees of earlier runs and of the interpreter that it was forked from."""

import gzip
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import helper  # type: ignore[import-not-found]
from prefect import flow

VALUE = 1
seen: list[int] = []
open_at_end: list[Any] = []
os.environ["SET_BY_IMPORT"] = "yes"


@flow
def warm(path: str, seconds: float = 0) -> None:
    """Record the facts, and leave traces that no other run may see."""
    seen.append(os.getpid())
    facts = {
        "value": VALUE,
        "helper": helper.VALUE,
        "seen": len(seen),
        "random": random.random(),
        "left": os.environ.get("LEFT"),
        "set_by_import": os.environ.get("SET_BY_IMPORT"),
        "parent": os.getppid(),
        "pid": os.getpid(),
        "modules": "tabnanny" in sys.modules,
    }
    Path(path).write_text(json.dumps(facts) + "\n")
    for name, kind in (("text", open), ("gzip", gzip.open)):
        file = kind(f"{path}.{name}", "wt")
        file.write("kept")
        open_at_end.append(file)
    os.environ["LEFT"] = "behind"
    import tabnanny  # noqa: F401

    time.sleep(seconds)
