"""What a project's code does while it is imported that each run has to do for itself: read the clock, random numbers
or the network.

`TODAY = date.today()` at the top of a module is right when each run imports the module. In an interpreter that has
imported it once it is yesterday's date.
"""

import datetime
import os
import pickle
import random
import sys
import time
from types import FrameType
from typing import Any

_FUNCTIONS: dict[Any, str] = {
    os.getpid: "reads its process id",
    os.urandom: "reads random bytes",
    **dict.fromkeys(
        [
            time.time,
            time.time_ns,
            time.monotonic,
            time.monotonic_ns,
            time.perf_counter,
            time.perf_counter_ns,
            time.localtime,
            time.gmtime,
            time.strftime,
            time.ctime,
        ],
        "reads the clock",
    ),
}
_METHODS: list[tuple[type, set[str], str]] = [
    (random.Random, {"random", "getrandbits", "seed", "getstate"}, "reads random numbers"),
]
_OF_CLASSES = {"now", "today", "utcnow"}
_EVENTS = {
    **dict.fromkeys(["socket.connect", "socket.getaddrinfo", "socket.sendto"], "uses the network"),
    **dict.fromkeys(["subprocess.Popen", "os.posix_spawn", "os.exec", "os.system", "os.fork"], "starts a process"),
    "sqlite3.connect": "opens a database",
}
_NUMPY = "numpy.random"
_GET_VARIABLE = type(os.environ).__getitem__.__code__


def side_effect_of_call(called: Any) -> str | None:
    """The side effect of a call of this function, which is written in C."""
    name, owner = getattr(called, "__name__", None), getattr(called, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, datetime.date):
        return "reads the clock" if name in _OF_CLASSES else None
    for kind, names, side_effect in _METHODS:
        if isinstance(owner, kind):
            return side_effect if name in names else None
    return _FUNCTIONS.get(called)


def side_effect_of_event(event: str) -> str | None:
    """The side effect that an audit event of Python reports."""
    return _EVENTS.get(event)


def side_effect_of_variable(frame: FrameType) -> str | None:
    """Which environment variable of a single run is read in this frame: Prefect marks them with two underscores."""
    if frame.f_code is not _GET_VARIABLE:
        return None
    name = frame.f_locals["key"]
    return f"reads {name}" if isinstance(name, str) and name.startswith("PREFECT__") else None


def is_numpy_import(frame: FrameType) -> bool:
    """Whether this frame is the import of numpy's random generators."""
    return frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == _NUMPY


def numpy_random_state() -> bytes | None:
    """The state of numpy's global generator, whose calls cannot be observed; None if numpy is not imported."""
    get_state = getattr(sys.modules.get(_NUMPY), "get_state", None)
    return pickle.dumps(get_state()) if get_state else None
