"""What a project's code reads while it is imported that is another at each run: the clock, randomness, the world.

`TODAY = date.today()` at the top of a module is right when each run imports it, and is yesterday's in the interpreter
that has imported it once.
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
    **dict.fromkeys(["socket.connect", "socket.getaddrinfo", "socket.sendto"], "asks the network"),
    **dict.fromkeys(["subprocess.Popen", "os.posix_spawn", "os.exec", "os.system", "os.fork"], "starts a process"),
    "sqlite3.connect": "opens a database",
}
_NUMPY = "numpy.random"
_ENVIRONMENT = type(os.environ).__getitem__.__code__


def read_by_call(called: Any) -> str | None:
    """What a call of this function of C does that each run has to do for itself."""
    name, owner = getattr(called, "__name__", None), getattr(called, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, datetime.date):
        return "reads the clock" if name in _OF_CLASSES else None
    for kind, names, what in _METHODS:
        if isinstance(owner, kind):
            return what if name in names else None
    return _FUNCTIONS.get(called)


def read_by_event(event: str) -> str | None:
    """What an event of Python's auditing says is done that each run has to do for itself."""
    return _EVENTS.get(event)


def read_of_environment(frame: FrameType) -> str | None:
    """Which variable that is each run's own is read in this frame: Prefect marks those with two underscores."""
    if frame.f_code is not _ENVIRONMENT:
        return None
    name = frame.f_locals["key"]
    return f"reads {name}" if isinstance(name, str) and name.startswith("PREFECT__") else None


def is_of_numpy(frame: FrameType) -> bool:
    """Whether this frame is the import of numpy's generators."""
    return frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == _NUMPY


def state_of_numpy() -> bytes | None:
    """The state of numpy's global generator, whose calls cannot be watched; None unless numpy is there."""
    get_state = getattr(sys.modules.get(_NUMPY), "get_state", None)
    return pickle.dumps(get_state()) if get_state else None
