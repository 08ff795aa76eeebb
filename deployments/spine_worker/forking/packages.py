"""The installed packages that a flow needs, imported in advance where runs can share them."""

import ctypes
import importlib
import os
import signal
import sys
from contextlib import suppress
from itertools import groupby

from spine_worker.forking.files import is_installed
from spine_worker.forking.fork_safety import ForkSafety

# From the kernel's `linux/prctl.h`.
_PR_SET_PDEATHSIG = 1


def installed_modules(before: set[str]) -> list[str]:
    """The modules of installed packages that are imported and not in `before`, in the order of their import."""
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name not in before and file and is_installed(file):
            found.append(name)
    return found


def preload(modules: list[str]) -> None:
    """Import these modules, except packages that start threads or keep files open.

    Each package is first tried in a process of its own.
    """
    for _, group in groupby(modules, key=lambda name: name.partition(".")[0]):
        names = list(group)
        server = os.getpid()
        if (child := os.fork()) == 0:
            _die_with(server)
            os._exit(_try(names))
        if os.waitpid(child, 0)[1] == 0:
            _import(names)


def _die_with(server: int) -> None:
    """End when the server ends: the worker kills it if an import hangs, and this process has its socket too."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)


def _try(names: list[str]) -> int:
    try:
        safety = ForkSafety()
        _import(names)
        return 1 if safety.side_effect() else 0
    except BaseException:  # The run is to meet the same error.
        return 1


def _import(names: list[str]) -> None:
    for name in names:
        # Some modules can be imported only through others.
        with suppress(ImportError):
            importlib.import_module(name)
