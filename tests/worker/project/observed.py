"""What code can observe of the interpreter and the process that it runs in."""

import asyncio
import atexit
import builtins
import contextvars
import decimal
import faulthandler
import gc
import inspect
import locale
import logging
import multiprocessing
import os
import random
import resource
import signal
import stat
import sys
import tempfile
import threading
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import psutil
from prefect.context import FlowRunContext, get_settings_context


def observed() -> dict[str, Any]:
    """Facts that are the same for each run, and that can be read without a side effect."""
    return {
        **_of_interpreter(),
        **_of_main_module(),
        **_of_hooks(),
        **_of_process(),
        **{f"{name}": _of_stream(getattr(sys, name)) for name in ("stdin", "stdout", "stderr")},
        **{f"logger {name or 'root'}": _of_logger(name) for name in ("", "prefect", "prefect.flow_runs", "asyncio")},
        "environment": {os.fsdecode(name): os.fsdecode(value) for name, value in os.environ._data.items()},  # type: ignore[attr-defined]
        "settings": get_settings_context().settings.to_environment_variables(exclude_unset=True),
        "in a flow": FlowRunContext.get() is not None,
        "source": inspect.getsource(_of_stream),
    }


def observed_of_run() -> dict[str, Any]:
    """Facts that only a run can read, the same for each."""
    return {
        "leads": [os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid()],
        "variables of the run": sorted(name for name in os.environ if name.startswith("PREFECT__")),
        "children": [child.name for child in multiprocessing.active_children()],
        "logging began": psutil.Process().create_time() < logging._startTime + 0.1,  # type: ignore[attr-defined]
    }


def drawn() -> list[Any]:
    """Random values, which no two runs may share."""
    key = bytes(multiprocessing.current_process().authkey).hex()
    return [
        random.random(),
        uuid.uuid4().hex,
        uuid.uuid1().hex,
        os.urandom(8).hex(),
        next(tempfile._get_candidate_names()),  # type: ignore[attr-defined]
        key,
    ]


def _of_interpreter() -> dict[str, Any]:
    return {
        **{name: getattr(sys, name) for name in ("argv", "orig_argv", "executable", "prefix", "path", "warnoptions")},
        **{name: getattr(sys, name) for name in ("dont_write_bytecode", "pycache_prefix", "_xoptions", "flags")},
        "packages": sorted({name.partition(".")[0] for name in sys.modules}),
        "modules": sorted(sys.modules),
        "builtins": sorted(vars(builtins)),
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval(), sys.get_int_max_str_digits()],
        "gc": [gc.isenabled(), gc.get_threshold(), gc.get_debug(), len(gc.callbacks)],
        "frozen objects": gc.get_freeze_count() > 0,
        "faulthandler": faulthandler.is_enabled(),
        "encodings": [sys.getfilesystemencoding(), sys.getfilesystemencodeerrors(), locale.getpreferredencoding(False)],
        "locale": locale.setlocale(locale.LC_ALL),
        "time zone": [time.tzname, time.timezone],
        "decimal": repr(decimal.getcontext()),
        "warnings": [repr(one) for one in warnings.filters],
        "temporary folder": tempfile.tempdir,
        "start method": multiprocessing.get_start_method(allow_none=True),
        "process name": multiprocessing.current_process().name,
        "event loop": type(asyncio.get_event_loop_policy()).__name__,
        "context": sorted(one.name for one in contextvars.copy_context()),
    }


def _of_main_module() -> dict[str, Any]:
    main = sys.modules["__main__"]
    return {
        "main": [main.__name__, main.__file__, main.__package__, main.__doc__, type(main.__loader__).__name__],
        "main's spec": [main.__spec__.name, main.__spec__.origin, main.__spec__.parent] if main.__spec__ else None,
        # The registry of warnings is there if importing Prefect has caused one.
        "main's names": sorted(vars(main).keys() - {"__warningregistry__"}),
        "main's code": inspect.getsource(main)[:99],
        "main's source file": inspect.getsourcefile(main),
    }


def _of_hooks() -> dict[str, Any]:
    hooks = (sys.excepthook, sys.unraisablehook, sys.displayhook, sys.breakpointhook, threading.excepthook)
    return {
        "hooks": [hook.__qualname__ for hook in (*hooks, warnings.showwarning)],
        "trace": repr(sys.gettrace()),
        "profile": repr(sys.getprofile()),
        "threads' hooks": [repr(threading.gettrace()), repr(threading.getprofile())],
        "generator hooks": repr(sys.get_asyncgen_hooks()),
        "finders": [getattr(one, "__name__", type(one).__name__) for one in sys.meta_path],
        "path hooks": [repr(one).partition(" at ")[0] for one in sys.path_hooks],
        "at exit": atexit._ncallbacks(),
    }


def _of_process() -> dict[str, Any]:
    mask = os.umask(0)
    os.umask(mask)
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    descriptors = [int(one) for one in os.listdir("/proc/self/fd")]
    return {
        "cwd": str(Path.cwd()),
        "umask": mask,
        "resource limits": {
            name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT")
        },
        "handlers": {
            one.name: repr(signal.getsignal(one)).partition(" at ")[0]
            for one in signal.valid_signals()
            if isinstance(one, signal.Signals)
        },
        "signals": {name: status[name] for name in ("SigBlk", "SigIgn", "SigCgt", "NoNewPrivs", "Seccomp")},
        "timers": [signal.getitimer(one) for one in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)],
        "nice": os.nice(0),
        "name": Path("/proc/self/comm").read_text(),
        "command": Path("/proc/self/cmdline").read_text().split("\0"),
        "out of memory": Path("/proc/self/oom_score_adj").read_text(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "inheritable": sorted(one for one in descriptors if one > 2 and _is_inheritable(one)),
    }


def _is_inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:  # The descriptor of the listing.
        return False


def _of_stream(stream: Any) -> dict[str, Any]:
    names = ("name", "mode", "encoding", "errors", "line_buffering", "write_through", "newlines")
    kind = stat.S_IFMT(os.fstat(stream.fileno()).st_mode)
    facts = {name: getattr(stream, name) for name in names}
    return {**facts, "descriptor": stream.fileno(), "is a terminal": stream.isatty(), "kind": kind}


def _of_logger(name: str) -> list[Any]:
    logger = logging.getLogger(name)
    handlers = [repr(handler) for handler in logger.handlers]
    return [logger.level, logger.disabled, logger.propagate, handlers, logging.raiseExceptions]
