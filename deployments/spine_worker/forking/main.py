"""The engine server: `python main.py <socket's descriptor> <directory>`, in that directory and its runs' environment.

It is started as a file so that the working directory can come first on `sys.path`, as it does for a run, without
its modules taking the place of ours.
"""

import importlib
import os
import socket
import sys
import time
from pathlib import Path

# All that a run needs of Prefect and imports late.
_MODULES = (
    "prefect.engine",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.flows",
    "prefect.tasks",
    "prefect.task_runners",
    "prefect.client.orchestration",
    "prefect.events.clients",
    "prefect.events.worker",
    "prefect.events.utilities",
    "prefect.logging.handlers",
    "prefect.results",
    "prefect.filesystems",
    "prefect.artifacts",
    "prefect.concurrency.sync",
    "prefect.concurrency.asyncio",
    "prefect.utilities.importtools",
    "prefect.utilities.visualization",
    "prefect._internal.metrics",
    "prefect._internal.observers",
    "anyio._backends._asyncio",
    "anyio.streams.memory",
    "anyio.streams.stapled",
    "anyio.streams.tls",
    "encodings.idna",
    "pydantic.v1",
    "rich._emoji_codes",
    "websockets.asyncio.client",
    "runpy",
)


def main() -> None:
    """Import Prefect, say so, and fork flow servers until the worker closes the socket."""
    began = time.time_ns()
    connection = socket.socket(fileno=int(sys.argv[1]))
    root = str(Path(__file__).resolve().parents[2])
    sys.path[0] = root
    from spine_worker.forking.environment_block import NAME, RunInEnvironment
    from spine_worker.forking.files import of_interpreter, signatures, working_directory
    from spine_worker.forking.loading import import_sources, load
    from spine_worker.forking.messages import Loaded
    from spine_worker.forking.prefect_patches import trim
    from spine_worker.forking.server import EngineServer

    directory = sys.argv[2]
    in_environment = RunInEnvironment()
    # It is blank, and nobody's: what asks for it here is to miss it.
    os.environ.pop(NAME, None)
    sys.path[0] = directory
    import_sources()
    for name in _MODULES:
        importlib.import_module(name)
    trim()
    server = EngineServer(connection, load, in_environment)
    server.send(Loaded({**signatures(of_interpreter(directory), began), **working_directory(directory)}))
    server.serve()


if __name__ == "__main__":
    main()
