"""The engine server: `python main.py <socket's descriptor> <directory>`, in that directory and its runs' environment.

It is started as a file so that the working directory can be first on `sys.path`, as it is for a run, without its
modules replacing ours.
"""

import gc
import importlib
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from spine_worker.forking.environment_block import RunIdSlot

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
    # Almost nothing that an import makes is ever garbage, and the collector would look at it again and again: a fifth
    # of the time of these imports.
    gc.disable()
    connection = socket.socket(fileno=int(sys.argv[1]))
    # It was passed as an inheritable one; no program that an import starts may keep it open.
    connection.set_inheritable(False)
    directory = sys.argv[2]
    # The package is found where this file is. Once it is imported, its modules are found without `sys.path`.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    import spine_worker.forking  # noqa: F401

    sys.path[0] = directory
    from spine_worker.forking.environment_block import NAME, RunIdSlot
    from spine_worker.forking.messages import Failed, encoded

    slot = RunIdSlot()
    # It is blank: code that reads it here must not find it.
    os.environ.pop(NAME, None)
    try:
        _prepare_prefect()
    except Exception as error:  # The worker reports it, and starts runs in another way.
        connection.sendall(encoded(Failed(f"{type(error).__name__}: {error}")))
        raise
    _serve(connection, directory, slot, began)


def _prepare_prefect() -> None:
    """Import Prefect, change what runs can share, and appear as its engine."""
    from spine_worker.forking.child_matching import match_children_by_parameters
    from spine_worker.forking.engine_program import present_as_engine
    from spine_worker.forking.loading import ignore_bytecode
    from spine_worker.forking.prefect_patches import patch_prefect
    from spine_worker.forking.rehearsal import rehearse
    from spine_worker.forking.storable_text import store_any_text

    ignore_bytecode()
    for name in _MODULES:
        importlib.import_module(name)
    patch_prefect()
    match_children_by_parameters()
    store_any_text()
    rehearse()
    present_as_engine()


def _serve(connection: socket.socket, directory: str, slot: "RunIdSlot", began: int) -> NoReturn:
    """Report that Prefect is imported, and fork flow servers."""
    from spine_worker.forking.files import (
        directory_signature,
        interpreter_files,
        project_module_files,
        signatures,
    )
    from spine_worker.forking.loading import load
    from spine_worker.forking.messages import Loaded
    from spine_worker.forking.server import EngineServer

    server = EngineServer(connection, load, slot)
    files = interpreter_files(directory) | project_module_files()
    server.send(Loaded({**signatures(files, began), **directory_signature(directory)}))
    gc.enable()
    server.serve()


if __name__ == "__main__":
    main()
