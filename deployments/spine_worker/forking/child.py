"""What a forked child does to be the process of a run, as `python -m prefect.engine` would be."""

import atexit
import gc
import io
import os
import runpy
import socket
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from spine_worker.forking.loading import Flow
from spine_worker.forking.messages import GO


@dataclass(frozen=True)
class Run:
    """What makes a run's process its own. Nothing is done of the run before `gate` says so."""

    environment: dict[str, str]
    stream_output: bool
    gate: socket.socket


def become_run(run: Run, flow: Flow | None) -> NoReturn:
    """Run Prefect's engine on the imported flow, or have it import the flow; then end as an interpreter ends."""
    _take_output(run.stream_output)
    os.environ.clear()
    os.environ.update(run.environment)
    for name, value in (flow.environment if flow else {}).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _reseed()
    status = _status_of_engine(run.gate, flow)
    try:
        _finish()
    finally:
        os._exit(status)


def _take_output(stream: bool) -> None:
    with open(os.devnull, "r+b") as nowhere:
        os.dup2(nowhere.fileno(), 0)
        if not stream:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)


def _reseed() -> None:
    """Python's own generator seeds itself after a fork; numpy's does not."""
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()


def _status_of_engine(gate: socket.socket, flow: Flow | None) -> int:
    import prefect.flow_engine

    load = prefect.flow_engine.load_flow

    def load_flow(flow_run: Any) -> Any:
        with gate:
            if gate.recv(1) != GO:
                os._exit(0)
        # Importing it once more would declare twice what may be declared once.
        return flow.flow if flow else load(flow_run)

    prefect.flow_engine.load_flow = load_flow
    sys.argv = [""]
    try:
        # The engine runs what it has under `if __name__ == "__main__"`.
        sys.modules.pop("prefect.engine", None)
        runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return _status(ended.code)
    except BaseException:  # As the interpreter does with what nobody catches.
        traceback.print_exc()
        return 1
    return 0


def _status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _finish() -> None:
    """What an interpreter does at its end, without taking down each object of the one that was forked."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException:  # The status is decided.
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    _close_files()


def _close_files() -> None:
    """Write what is still in the buffers of files that this process has opened, and of archives."""
    gc.collect()
    # Objects of before the fork are frozen, and not among these.
    files = [one for one in gc.get_objects() if issubclass(type(one), io.TextIOBase | io.BufferedIOBase)]
    # Text is kept by what encodes it, then by what compresses it, then by what writes it.
    for file in sorted(files, key=lambda one: (not isinstance(one, io.TextIOBase), type(one).__module__ == "_io")):
        try:
            file.close()
        except Exception:  # As with what goes wrong in `__del__`.
            traceback.print_exc()
