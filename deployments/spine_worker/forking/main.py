"""The engine server: `python main.py <socket's descriptor> <directory>`, in that directory and its runs' environment.

It is started as a file so that the working directory can be first on `sys.path`, as it is for a run, without its
modules replacing ours.
"""

import importlib
import os
import socket
import sys
import time
from pathlib import Path

# What a run needs of Prefect and imports late.
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
    """Import Prefect, report it, and fork flow servers until the worker closes the socket."""
    began = time.time_ns()
    connection = socket.socket(fileno=int(sys.argv[1]))
    directory = sys.argv[2]
    # The package is found where this file is. Once it is imported, its modules are found without `sys.path`.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    import spine_worker.forking  # noqa: F401

    sys.path[0] = directory
    from spine_worker.forking.environment_block import NAME, RunIdSlot
    from spine_worker.forking.files import directory_signature, interpreter_files, signatures
    from spine_worker.forking.loading import ignore_bytecode, load
    from spine_worker.forking.messages import Loaded
    from spine_worker.forking.prefect_patches import patch_prefect
    from spine_worker.forking.server import EngineServer

    slot = RunIdSlot()
    # It is blank: code that reads it here must not find it.
    os.environ.pop(NAME, None)
    ignore_bytecode()
    for name in _MODULES:
        importlib.import_module(name)
    patch_prefect()
    server = EngineServer(connection, load, slot)
    server.send(Loaded({**signatures(interpreter_files(directory), began), **directory_signature(directory)}))
    server.serve()


if __name__ == "__main__":
    main()
