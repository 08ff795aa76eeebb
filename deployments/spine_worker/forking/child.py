"""Turns a forked child into the process of a run, equal to one started by `python -m prefect.engine`."""

import atexit
import gc
import io
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from spine_worker.forking.engine_program import run_engine
from spine_worker.forking.known import use_known
from spine_worker.forking.loading import LoadedFlow
from spine_worker.forking.messages import BEGUN, GO, Known

# The classes of C from which all files derive. Python's own are abstract, and to ask for these takes 20 ms a process.
_FILES = tuple(kind.__bases__[0] for kind in (io.TextIOBase, io.BufferedIOBase))


@dataclass(frozen=True)
class Run:
    """What is particular to one run. The run begins when `GO` arrives over `gate`, and answers with `BEGUN`."""

    environment: dict[str, str]
    stream_output: bool
    gate: socket.socket
    known: Known = field(default_factory=Known)


def execute_run(run: Run, loaded: LoadedFlow | None) -> NoReturn:
    """Execute a run in Prefect's engine and exit as an interpreter exits.

    Without `loaded` the engine imports the flow itself.
    """
    _redirect_output(run.stream_output)
    # Python itself may have set more variables when the server was started (PEP 538).
    os.environ.update(run.environment)
    for name, value in (loaded.environment if loaded else {}).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _reseed()
    _fork_ahead()
    use_known(run.known)
    status = _run_engine(run.gate, loaded)
    try:
        _finish()
    finally:
        _exit(status)


def _redirect_output(stream: bool) -> None:
    with open(os.devnull, "r+b") as null:
        os.dup2(null.fileno(), 0)
        if not stream:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)


def _reseed() -> None:
    """Renew what an interpreter draws or reads when it starts; Python's own generator is seeded after each fork."""
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()
    if process := sys.modules.get("multiprocessing.process"):
        process.current_process().authkey = os.urandom(32)
    # The origin of `relativeCreated` in log records: nanoseconds from Python 3.13 on.
    logging._startTime = time.time_ns() if isinstance(logging._startTime, int) else time.time()  # type: ignore[attr-defined]


def _fork_ahead() -> None:
    """Fork the process that reads untrusted content, if the flow reads sources: later this process has more threads."""
    if processes := sys.modules.get("spine.sources.isolation.processes"):
        processes.fork_ahead()


def _run_engine(gate: socket.socket, loaded: LoadedFlow | None) -> int:
    """Run Prefect's engine and return the exit status of the process."""
    import prefect.flow_engine

    import_flow = prefect.flow_engine.load_flow

    def load_flow(flow_run: Any) -> Any:
        with gate:
            if gate.recv(1) != GO:
                os._exit(0)
            # Without a worker the run continues.
            with suppress(OSError):
                gate.send(BEGUN)
        # A second import would repeat declarations that may be made only once.
        return loaded.flow if loaded else _import_saying_why_it_exits(import_flow, flow_run)

    prefect.flow_engine.load_flow = load_flow
    try:
        run_engine()
    except SystemExit as exit_request:
        return _exit_status(exit_request.code)
    except BaseException as error:  # The interpreter does the same with an exception that nothing catches.
        sys.excepthook(type(error), error, error.__traceback__)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _import_saying_why_it_exits(import_flow: Callable[[Any], Any], flow_run: Any) -> Any:
    """Import the flow. Prefect logs the exceptions of an import, but not the text of `sys.exit("text")`."""
    from prefect.logging.loggers import flow_run_logger

    try:
        return import_flow(flow_run)
    except SystemExit as exit_request:
        if isinstance(exit_request.code, str):
            flow_run_logger(flow_run).error("Unexpected exception encountered when trying to load flow", exc_info=True)
        raise


def _exit_status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _exit(status: int) -> NoReturn:
    """Exit with this status, or by the signal of this negative number."""
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status & 0xFF)


def _finish() -> None:
    """Do what an interpreter does when it exits, without deallocating the objects of the parent."""
    for step in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]
        try:
            step()
        except BaseException:  # The exit status is already decided.
            traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    _close_files()


def _close_files() -> None:
    """Close the files that this process has opened, archives included, so that their buffers are written."""
    gc.collect()
    # Objects from before the fork are frozen, so `get_objects` does not return them.
    files = [one for one in gc.get_objects() if issubclass(type(one), _FILES)]
    # Close in the order in which data moves: text encoders first, then compressors, then the raw writers.
    for file in sorted(files, key=lambda one: (not isinstance(one, io.TextIOBase), type(one).__module__ == "_io")):
        try:
            file.close()
        except Exception:  # The interpreter does the same with an exception in `__del__`.
            traceback.print_exc()
