"""What a project's code does while it is imported that each run has to do for itself: read the clock, random numbers
or the network, print, change files, or set what a fork does not inherit.

`TODAY = date.today()` at the top of a module is right when each run imports the module. In an interpreter that has
imported it once it is yesterday's date.
"""

import datetime
import io
import os
import pickle
import random
import signal
import sys
import time
from types import FrameType
from typing import Any

from spine_worker.forking.files import is_installed

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
    # The timers of a process end with it.
    **dict.fromkeys([signal.alarm, signal.setitimer], "sets a timer"),
    **dict.fromkeys([print, os.write], "prints"),
}
_METHODS: list[tuple[type, set[str], str]] = [
    (random.Random, {"random", "getrandbits", "seed", "getstate"}, "reads random numbers"),
]
_OF_CLASSES = {"now", "today", "utcnow"}
_EVENTS = {
    **dict.fromkeys(["socket.connect", "socket.getaddrinfo", "socket.sendto"], "uses the network"),
    **dict.fromkeys(["subprocess.Popen", "os.posix_spawn", "os.exec", "os.system", "os.fork"], "starts a process"),
    "sqlite3.connect": "opens a database",
    # The import is recorded by a profiler, which would replace another one.
    **dict.fromkeys(["sys.setprofile", "sys.settrace"], "sets a profiler or tracer"),
    **dict.fromkeys(
        ["os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown"],
        "changes files",
    ),
}
_WRITES = {"write", "writelines"}
_OUTPUT = (1, 2)
_NUMPY = "numpy.random"
_GET_VARIABLE = type(os.environ).__getitem__.__code__
_LIST_VARIABLES = type(os.environ).__iter__.__code__


def side_effect_of_call(called: Any) -> str | None:
    """The side effect of a call of this function, which is written in C."""
    name, owner = getattr(called, "__name__", None), getattr(called, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, datetime.date):
        return "reads the clock" if name in _OF_CLASSES else None
    if name in _WRITES and isinstance(owner, io.IOBase):
        return "prints" if _is_output(owner) else None
    for kind, names, side_effect in _METHODS:
        if isinstance(owner, kind):
            return side_effect if name in names else None
    return _FUNCTIONS.get(called)


def side_effect_of_event(event: str) -> str | None:
    """The side effect that an audit event of Python reports."""
    return _EVENTS.get(event)


def side_effect_of_variable(frame: FrameType) -> str | None:
    """Which environment variable of a single run is read in this frame: Prefect marks them with two underscores."""
    if frame.f_code is _LIST_VARIABLES:
        return "lists all variables" if _is_for_project(frame) else None
    if frame.f_code is not _GET_VARIABLE:
        return None
    name = frame.f_locals["key"]
    name = os.fsdecode(name) if isinstance(name, str | bytes) else ""
    return f"reads {name}" if name.startswith("PREFECT__") else None


def _is_for_project(frame: FrameType) -> bool:
    """Whether the project's own code lists the variables: libraries that do look for names that they know."""
    caller = frame.f_back
    while caller is not None and caller.f_code.co_filename.startswith("<frozen"):
        caller = caller.f_back
    return caller is not None and not is_installed(caller.f_code.co_filename)


def _is_output(stream: io.IOBase) -> bool:
    try:
        return stream.fileno() in _OUTPUT
    except (OSError, ValueError):  # It is not a file, or closed.
        return False


def is_numpy_import(frame: FrameType) -> bool:
    """Whether this frame is the import of numpy's random generators."""
    return frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == _NUMPY


def numpy_random_state() -> bytes | None:
    """The state of numpy's global generator, whose calls cannot be observed; None if numpy is not imported."""
    get_state = getattr(sys.modules.get(_NUMPY), "get_state", None)
    return pickle.dumps(get_state()) if get_state else None
