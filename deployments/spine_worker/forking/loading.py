"""Importing a flow, and whether runs can share what the import has made."""

import os
import sys
import time
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from typing import Any

from spine_worker.forking.files import Signatures, is_installed, of_modules, signatures
from spine_worker.forking.fork_safety import Sharing
from spine_worker.forking.import_recorder import watching
from spine_worker.forking.messages import HOOKS
from spine_worker.forking.packages import installed_modules


@dataclass(frozen=True)
class Flow:
    """A flow as its entrypoint gives it, or why each run has to import it for itself.

    `files` are those that it was made from, `environment` are the variables that importing it has set, or deleted, and
    `modules` those of installed packages that it needs.
    """

    flow: Any
    files: Signatures = field(default_factory=dict)
    refusal: str | None = None
    environment: dict[str, str | None] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)

    @property
    def hooks(self) -> list[str]:
        """The kinds of hooks that it may have; what each run imports for itself can be another flow each time."""
        return [kind for kind in HOOKS if self.refusal or getattr(self.flow, f"on_{kind}_hooks")]


def load(entrypoint: str) -> Flow:
    """Import the flow of an entrypoint, in the form of Prefect's deployments: `path.py:name` or `module:name`."""
    sharing, modules, environment, began = Sharing(), set(sys.modules), dict(os.environ), time.time_ns()
    flow, refusal, script = None, None, entrypoint.rpartition(":")[0]
    with watching() as watch:
        try:
            script = os.path.abspath(script)
            flow = _import(entrypoint)
        except BaseException as error:  # Whatever the code of a flow does: the run is to meet it, not this process.
            refusal = f"raises {type(error).__name__}"
    files = {path for path in {*watch.files, *of_modules(), script} if not os.path.isdir(path)}
    if watch.reads:
        refusal = refusal or watch.reads[0]
    return Flow(
        flow,
        signatures(files | watch.folders, began),
        refusal or sharing.obstacle(),
        _changes(environment),
        installed_modules(modules),
    )


def _changes(before: dict[str, str]) -> dict[str, str | None]:
    names = {name for name, _ in before.items() ^ os.environ.items()}
    return {name: os.environ.get(name) for name in names}


def _import(entrypoint: str) -> Any:
    from prefect.flow_engine import _load_flow_from_runtime_entrypoint

    return _load_flow_from_runtime_entrypoint(entrypoint)


def import_sources() -> None:
    """From now on neither read nor write bytecode of a project's modules.

    Python takes bytecode for up to date by the second and the size of the source.
    """
    stats = SourceFileLoader.path_stats

    def path_stats(self: SourceFileLoader, path: str) -> Any:
        if is_installed(path):
            return stats(self, path)
        # To importlib this says that nothing is known of the source but what is in it.
        raise OSError("bytecode is of no use here")

    SourceFileLoader.path_stats = path_stats  # type: ignore[method-assign]
