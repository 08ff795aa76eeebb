"""The fork server: a small process with one thread, which forks a process for each piece of work.

It belongs to one process and ends with it. It also ends the processes that it has forked, because only the parent of
a process can be sure that a process id is still the one it means.
"""

import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from spine.sources.isolation.task import run_task

# The size of the longest message.
LONGEST_MESSAGE = 1 << 16
# From the kernel's `linux/prctl.h`.
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def main(descriptor: int) -> NoReturn:
    """Serve the process at the other end of a socket."""
    serve(socket.socket(fileno=descriptor))


def serve(control: socket.socket) -> NoReturn:
    """Serve until the other end closes the socket."""
    # The process that this one belongs to handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    while True:
        # Keep the collector from writing to memory pages that the children share.
        gc.freeze()
        try:
            data, descriptors, _, _ = socket.recv_fds(control, LONGEST_MESSAGE, 1)
        except OSError:
            data, descriptors = b"", []
        if not data:
            os._exit(0)
        request = json.loads(data)
        reply = _end(request["pid"]) if "pid" in request else _start(control, request, descriptors[0])
        with suppress(OSError):
            control.send(json.dumps(reply).encode())


def _start(control: socket.socket, request: dict[str, Any], descriptor: int) -> dict[str, Any]:
    """Fork a process that gets its work from the descriptor."""
    for name in request["modules"]:
        # The work itself reports what is missing.
        with suppress(ImportError):
            importlib.import_module(name)
    server = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        pid = os.fork()
    except OSError as error:
        return {"error": os.strerror(error.errno or 0)}
    finally:
        if os.getpid() == server:
            os.close(descriptor)
    if pid == 0:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(1)
        control.close()
        run_task(Connection(descriptor), request["memory_bytes"])
    return {"pid": pid}


def _end(pid: int) -> dict[str, Any]:
    """Kill a process, unless it has ended, and report how it ended and the most memory it had, in kilobytes."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "peak_kilobytes": usage.ru_maxrss,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
    }
