"""Watching an import: which files it depends on, and what it does on behalf of the project's code."""

import importlib
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from spine_worker.forking.files import is_installed
from spine_worker.forking.import_side_effects import (
    is_of_numpy,
    read_by_call,
    read_by_event,
    read_of_environment,
    state_of_numpy,
)

_LOOKS = {
    id(function.__code__)
    for function in (os.path.exists, os.path.isfile, os.path.isdir, os.path.getmtime, os.path.getsize, Path.stat)
}
_MODULES = (".py", "/__init__.py", "")


@dataclass
class Watch:
    """What was seen.

    `files` and `folders` are those outside of installed packages and the system's own that were read or listed, or
    looked for in vain: a module's name is looked for in several places. `reads` says what was done that each run has
    to do for itself.
    """

    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    reads: list[str] = field(default_factory=list)
    _is_on: bool = True
    _numpy: bytes | None = field(default_factory=state_of_numpy)

    def stop(self) -> None:
        """Look no more: there is no way to take an audit hook out again."""
        self._is_on = False
        if self._numpy != state_of_numpy():
            self.reads.append("reads or seeds random numbers")

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Look at an event of Python's auditing."""
        if not self._is_on:
            return
        if event == "open":
            if arguments[2] & os.O_ACCMODE != os.O_WRONLY:
                self._note(arguments[0], self.files)
        elif event in ("os.listdir", "os.scandir"):
            if _is_of_project(sys._getframe(1)):
                self._note(arguments[0] or ".", self.folders)
        elif (what := read_by_event(event)) and _is_of_project(sys._getframe(1)):
            self.reads.append(what)

    def profile(self, frame: FrameType, event: str, called: Any) -> None:
        """Look at a call."""
        what = None
        if event == "c_call":
            what = read_by_call(called)
        elif event == "call":
            what = read_of_environment(frame)
            if id(frame.f_code) in _LOOKS and _is_of_project(frame):
                self._note(frame.f_locals[frame.f_code.co_varnames[0]], self.files)
        elif event == "return" and is_of_numpy(frame):
            self._numpy = state_of_numpy()
        if what and _is_of_project(frame):
            self.reads.append(what)

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> None:
        """Look at where a module may be, as a finder of modules that finds none."""
        for folder in sys.path if path is None else path:
            for suffix in _MODULES if os.path.isdir(folder) else ():
                self._note(os.path.join(folder, name.rpartition(".")[2] + suffix), self.files)

    @staticmethod
    def _note(path: Any, where: set[str]) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            path = os.path.abspath(os.fsdecode(path))
            if not path.startswith(_SYSTEM) and not is_installed(path):
                where.add(path)


@contextmanager
def watching() -> Iterator[Watch]:
    """Watch what this process does meanwhile. Calls are watched in this thread only."""
    watch, previous = Watch(), sys.getprofile()
    # What was listed within one step of the file system's clock may have changed since.
    importlib.invalidate_caches()
    sys.meta_path.insert(0, watch)
    sys.addaudithook(watch.audit)
    sys.setprofile(watch.profile)
    try:
        yield watch
    finally:
        sys.setprofile(previous)
        sys.meta_path.remove(watch)
        watch.stop()


def _is_of_project(frame: FrameType | None) -> bool:
    """Whether something is done for the project's code, perhaps by way of libraries.

    What a library does when it is imported is its own affair.
    """
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib"):
            return False
        if not file.startswith(_NOT_OF_PROJECT):
            return True
        frame = frame.f_back
    # A thread of an import does what it was begun for.
    return threading.current_thread() is not threading.main_thread()


_SYSTEM = ("/proc/", "/sys/", "/dev/")
_PLACES = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
_NOT_OF_PROJECT = ("<", f"{Path(__file__).parent}/", *(f"{place.rstrip('/')}/" for place in _PLACES))
