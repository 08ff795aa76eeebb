"""The worker of `spine up`: `python -m spine.up.worker <socket> <socket> <options of prefect worker start>`.

It imports what a worker needs while Prefect's server still starts, and begins to work when `spine up` writes to the
second socket. Before, it forks a process that makes the calls of `spine up` to Prefect, so that Prefect's client is
imported once for both.
"""

import os
import socket
import sys
import threading
from contextlib import suppress

from spine.imports import importing

with importing():
    from prefect.cli import app
    from prefect.workers.base import BaseWorker


def main(calls: socket.socket, begin: socket.socket, options: list[str]) -> None:
    """Fork, wait, and become the worker."""
    with importing():
        # Imports the module of this type; Prefect's command reports one that does not exist.
        BaseWorker.get_worker_class_from_type(options[options.index("--type") + 1])
    pid = os.fork()
    if pid == 0:
        begin.close()
        _make_calls(calls)
    calls.close()
    # The worker does not know of this process, which would stay a zombie.
    threading.Thread(target=os.waitpid, args=(pid, 0), daemon=True).start()
    if begin.recv(1):
        begin.close()
        sys.argv = ["prefect", "worker", "start", *options]
        app()


def _make_calls(calls: socket.socket) -> None:
    """Answer calls, and end this process."""
    try:
        with importing():
            # Imported here: the worker does without them.
            import spine.flows.deployment  # noqa: F401
            from spine.up.calls import serve_calls
            from spine.up.prefect_calls import PREFECT_CALLS
        with suppress(ConnectionError):
            serve_calls(calls, PREFECT_CALLS)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), socket.socket(fileno=int(sys.argv[2])), sys.argv[3:])
