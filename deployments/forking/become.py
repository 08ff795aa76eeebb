"""What a forked child does to be the process of a run, as `python -m prefect.engine` would be."""

import atexit
import os
import runpy
import socket
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from deployments.forking.messages import GO


@dataclass(frozen=True)
class Run:
    """What makes a run's process its own. Nothing is done of the run before `gate` says so."""

    environment: dict[str, str]
    stream_output: bool
    gate: socket.socket


def become_run(run: Run, flow: Any) -> NoReturn:
    """Run Prefect's engine on the imported flow and end the process as an interpreter ends."""
    _take_output(run.stream_output)
    os.environ.clear()
    os.environ.update(run.environment)
    _reseed()
    status = _status_of_engine(run.gate, flow)
    _finish()
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


def _status_of_engine(gate: socket.socket, flow: Any) -> int:
    import prefect.flow_engine

    def load_flow(flow_run: object) -> Any:
        # It is imported already, and importing it once more would declare twice what may be declared once.
        with gate:
            if gate.recv(1) != GO:
                os._exit(0)
        return flow

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
