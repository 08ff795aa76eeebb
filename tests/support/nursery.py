"""Starts API processes as forks of one interpreter that has imported the API, which takes seconds of processor time.

One such interpreter serves all test processes of a run. A fork becomes what `python -m spine.cli serve` would be: a
session of its own, with its own environment, directory, output, time zone and settings. It imports nothing before the
first request, so that a run without API processes does not pay for it.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zoneinfo
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import psutil

from tests.support.processes import PROJECT, running, stop

# Where the interpreter listens; test processes of xdist inherit the variable.
VARIABLE = "SPINE_TESTS_NURSERY"


class Nursery:
    """The interpreter, which ends with this process."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="spine-nursery-")
        path = os.path.join(self._folder.name, "socket")
        # It ends when its standard input is closed, whatever becomes of this process.
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, path],
            env={**os.environ, "PREFECT_HOME": self._folder.name},
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        os.environ[VARIABLE] = path

    def close(self) -> None:
        """Stop the interpreter; what it has forked is stopped by those who wanted it."""
        self._process.communicate()
        self._folder.cleanup()


@contextmanager
def serving_process(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[psutil.Process]:
    """A process of `spine serve` with these arguments, stopped at the end; a new interpreter outside of pytest."""
    if VARIABLE not in os.environ:
        with running(["spine.cli", "serve", *arguments], environment, log) as started:
            yield started
        return
    request = {"arguments": arguments, "environment": {**os.environ, **environment}, "log": str(log)}
    with socket.socket(socket.AF_UNIX) as nursery:
        nursery.connect(os.environ[VARIABLE])
        nursery.sendall(json.dumps(request).encode() + b"\n")
        process = psutil.Process(int(nursery.makefile().readline()))
    try:
        yield process
    finally:
        stop(process)


def serve(path: str) -> None:
    """Fork for each request, and answer with the number of the new process."""
    # Nobody waits for the forks: who wanted one sees that it has ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(100)
        print("ready", flush=True)
        while sys.stdin not in (found := select.select([listener, sys.stdin], [], [])[0]):
            assert listener in found
            asker = listener.accept()[0]
            request = json.loads(asker.makefile().readline())
            _import_the_api()
            child = os.fork()
            if child == 0:
                listener.close()
                asker.close()
                _become(request)
            asker.sendall(f"{child}\n".encode())
            asker.close()


def _import_the_api() -> None:
    import spine.cli
    import spine.main  # noqa: F401


def _become(request: dict[str, Any]) -> NoReturn:
    """Run `spine serve` as a process that was started for it would, and exit."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with open(os.devnull, "rb") as null, open(request["log"], "ab") as log:
        os.dup2(null.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.clear()
    os.environ.update(request["environment"])
    status: Any = 1
    try:
        _see_the_environment()
        from spine.cli import app

        sys.argv = ["spine", "serve", *request["arguments"]]
        app(sys.argv[1:])
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def _see_the_environment() -> None:
    """Read again what an interpreter reads from its environment when it starts or imports."""
    import prefect.context

    time.tzset()
    zoneinfo.reset_tzpath()
    zoneinfo.ZoneInfo.clear_cache()
    prefect.context.refresh_global_settings_context()


if __name__ == "__main__":
    serve(sys.argv[1])
