"""Records an import: the files that it depends on, and the side effects of the project's code."""

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
    is_numpy_import,
    numpy_random_state,
    side_effect_of_call,
    side_effect_of_event,
    side_effect_of_variable,
)

_LOOKUPS = {
    id(function.__code__)
    for function in (os.path.exists, os.path.isfile, os.path.isdir, os.path.getmtime, os.path.getsize, Path.stat)
}
_MODULE_SUFFIXES = (".py", "/__init__.py", "")


@dataclass
class ImportRecorder:
    """What an import has done.

    `files` and `folders` were read or listed, or were looked up and not found: Python looks for a module in several
    places. A folder that was made ends in a slash. Files of installed packages and of the system are left out.
    `side_effects` are what each run has to do for itself. `sets_variables` says whether the project's code has changed
    environment variables.
    """

    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    side_effects: list[str] = field(default_factory=list)
    sets_variables: bool = False
    _is_on: bool = True
    _numpy: bytes | None = field(default_factory=numpy_random_state)

    def stop(self) -> None:
        """Stop recording; Python cannot remove an audit hook."""
        self._is_on = False
        if self._numpy != numpy_random_state():
            self.side_effects.append("reads or seeds random numbers")

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Record an event of Python's auditing."""
        if not self._is_on:
            return
        if event == "open":
            if arguments[2] & os.O_ACCMODE != os.O_WRONLY:
                self._note(arguments[0], self.files)
            if arguments[2] & _CHANGES and _is_path(arguments[0]) and _is_of_project(sys._getframe(1)):
                self.side_effects.append("changes files")
        elif event == "os.mkdir":
            # A run may delete it: the next one is to find it again.
            if _is_path(arguments[0]) and _is_of_project(sys._getframe(1)):
                self.folders.add(f"{os.path.abspath(os.fsdecode(arguments[0]))}/")
        elif event in ("os.putenv", "os.unsetenv"):
            self.sets_variables = self.sets_variables or _is_of_project(sys._getframe(1))
        elif event in ("os.listdir", "os.scandir"):
            if _is_of_project(sys._getframe(1)):
                self._note(arguments[0] or ".", self.folders)
        elif (side_effect := side_effect_of_event(event)) and _is_of_project(sys._getframe(1)):
            self.side_effects.append(side_effect)

    def profile(self, frame: FrameType, event: str, called: Any) -> None:
        """Record a call."""
        side_effect = None
        if event == "c_call":
            side_effect = side_effect_of_call(called)
        elif event == "call":
            side_effect = side_effect_of_variable(frame)
            if id(frame.f_code) in _LOOKUPS and _is_of_project(frame):
                self._note(frame.f_locals[frame.f_code.co_varnames[0]], self.files)
        elif event == "return" and is_numpy_import(frame):
            self._numpy = numpy_random_state()
        if side_effect and _is_of_project(frame):
            self.side_effects.append(side_effect)

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> None:
        """Record where a module may be. As a finder of modules, find none."""
        for folder in sys.path if path is None else path:
            for suffix in _MODULE_SUFFIXES if os.path.isdir(folder) else ():
                self._note(os.path.join(folder, name.rpartition(".")[2] + suffix), self.files)

    @staticmethod
    def _note(path: Any, where: set[str]) -> None:
        if _is_path(path):
            path = os.path.abspath(os.fsdecode(path))
            if not is_installed(path):
                where.add(path)


@contextmanager
def recording_imports() -> Iterator[ImportRecorder]:
    """Record what this process does inside the `with` block. Calls are recorded in this thread only."""
    recorder, previous = ImportRecorder(), sys.getprofile()
    # A directory that was listed within one step of the file system's clock may have changed since.
    importlib.invalidate_caches()
    sys.meta_path.insert(0, recorder)
    sys.addaudithook(recorder.audit)
    sys.setprofile(recorder.profile)
    try:
        yield recorder
    finally:
        sys.setprofile(previous)
        sys.meta_path.remove(recorder)
        recorder.stop()


def _is_path(path: Any) -> bool:
    """Whether this is a path, and none of the system's."""
    return isinstance(path, str | bytes | os.PathLike) and not os.path.abspath(os.fsdecode(path)).startswith(_SYSTEM)


def _is_of_project(frame: FrameType | None) -> bool:
    """Whether the project's code does something, directly or through libraries.

    What a library does while it is imported does not count.
    """
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib"):
            return False
        if not file.startswith(_NOT_OF_PROJECT):
            return True
        frame = frame.f_back
    # A thread that an import has started works for that import.
    return threading.current_thread() is not threading.main_thread()


_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_SYSTEM = ("/proc/", "/sys/", "/dev/")
_PLACES = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
_NOT_OF_PROJECT = ("<", f"{Path(__file__).parent}/", *(f"{place.rstrip('/')}/" for place in _PLACES))
