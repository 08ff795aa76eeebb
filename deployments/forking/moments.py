"""What a project's code reads while it is imported that is another at each run: the clock, randomness, the process.

`TODAY = date.today()` at the top of a module is right when each run imports it, and is yesterday's in the interpreter
that has imported it once.
"""

import datetime
import os
import random
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_FUNCTIONS: dict[Any, str] = {
    os.getpid: "its process id",
    os.urandom: "random bytes",
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
        "the clock",
    ),
}
_METHODS: list[tuple[type, set[str], str]] = [
    (random.Random, {"random", "getrandbits", "seed", "getstate"}, "random numbers"),
]
_OF_CLASSES = {"now", "today", "utcnow"}


@contextmanager
def reads_of_the_moment() -> Iterator[list[str]]:
    """What this thread reads meanwhile on behalf of code that belongs to no installed package."""
    found: list[str] = []
    previous = sys.getprofile()

    def profile(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and (what := _what(called)) and _is_of_project(frame):
            found.append(what)

    sys.setprofile(profile)
    try:
        yield found
    finally:
        sys.setprofile(previous)


def _what(called: Any) -> str | None:
    name, owner = getattr(called, "__name__", None), getattr(called, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, datetime.date):
        return "the clock" if name in _OF_CLASSES else None
    for kind, names, what in _METHODS:
        if isinstance(owner, kind):
            return what if name in names else None
    return _FUNCTIONS.get(called)


def _is_of_project(frame: FrameType | None) -> bool:
    """Whether the code that asks, perhaps by way of the standard library, is the project's."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(("<frozen importlib", *_PACKAGES)):
            # What an installed module does when it is imported is its own affair.
            return False
        if not file.startswith(("<", *_LIBRARY)):
            return True
        frame = frame.f_back
    return False


def _folders(*names: str) -> tuple[str, ...]:
    places = sysconfig.get_paths()
    return tuple(sorted({f"{places[name].rstrip('/')}/" for name in names}))


_PACKAGES = _folders("purelib", "platlib")
_LIBRARY = _folders("stdlib", "platstdlib")
