"""Imports a flow, and finds out whether runs can share what the import has made."""

import os
import sys
import time
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from typing import Any

from spine_worker.forking.files import Signatures, is_installed, project_module_files, signatures
from spine_worker.forking.fork_safety import ForkSafety
from spine_worker.forking.import_recorder import recording_imports
from spine_worker.forking.messages import HOOKS
from spine_worker.forking.packages import installed_modules


@dataclass(frozen=True)
class LoadedFlow:
    """A flow that was imported from its entrypoint, or the side effect that makes each run import it for itself.

    `files` are what the flow was made from, `environment` the variables that the import has set, or deleted (None), and
    `modules` the modules of installed packages that can be imported before it.
    """

    flow: Any
    files: Signatures = field(default_factory=dict)
    side_effect: str | None = None
    environment: dict[str, str | None] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)

    @property
    def hooks(self) -> list[str]:
        """The kinds of hooks that the flow may have. A flow that each run imports can be a different one each time."""
        return [kind for kind in HOOKS if self.side_effect or getattr(self.flow, f"on_{kind}_hooks")]


def load(entrypoint: str) -> LoadedFlow:
    """Import the flow of an entrypoint as Prefect does: `path.py:name`, `module:name` or `module.name`."""
    safety, modules, environment, began = ForkSafety(), set(sys.modules), dict(os.environ), time.time_ns()
    flow, side_effect, script = None, None, entrypoint.rpartition(":")[0]
    with recording_imports() as recorder:
        try:
            script = os.path.abspath(script)
            flow = _import(entrypoint)
        except BaseException as error:  # The run is to meet the same error; this process goes on.
            side_effect = f"raises {type(error).__name__}"
    files = {path for path in {*recorder.files, *project_module_files(), script} if not os.path.isdir(path)}
    if recorder.side_effects:
        side_effect = side_effect or recorder.side_effects[0]
    return LoadedFlow(
        flow,
        signatures(files | recorder.folders, began),
        side_effect or safety.side_effect(),
        _changes(environment),
        # A package may have to see the variables that the flow sets before it imports the package.
        [] if recorder.sets_variables else installed_modules(modules),
    )


def _changes(before: dict[str, str]) -> dict[str, str | None]:
    names = {name for name, _ in before.items() ^ os.environ.items()}
    return {name: os.environ.get(name) for name in names}


def _import(entrypoint: str) -> Any:
    from prefect.flow_engine import _load_flow_from_runtime_entrypoint

    return _load_flow_from_runtime_entrypoint(entrypoint)


def ignore_bytecode() -> None:
    """From now on neither read nor write the bytecode of a project's modules.

    Python takes bytecode as up to date if the size of the source and the second of its change are the same.
    """
    stats = SourceFileLoader.path_stats

    def path_stats(self: SourceFileLoader, path: str) -> Any:
        if is_installed(path):
            return stats(self, path)
        # On this error importlib reads the source.
        raise OSError("the bytecode of projects is not used")

    SourceFileLoader.path_stats = path_stats  # type: ignore[method-assign]
