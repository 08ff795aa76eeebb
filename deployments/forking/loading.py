"""Importing a flow, and whether the process can be forked afterwards."""

import os
import time
from dataclasses import dataclass, field
from typing import Any

from deployments.forking.files import Signatures, of_modules, opened_files, signatures


@dataclass(frozen=True)
class Flow:
    """A flow as its entrypoint gives it, or why runs of it cannot be forked from here."""

    flow: Any
    files: Signatures = field(default_factory=dict)
    refusal: str | None = None


def load(entrypoint: str) -> Flow:
    """Import the flow of an entrypoint, in the form of Prefect's deployments: `path.py:name` or `module:name`."""
    before, began = _descriptors(), time.time_ns()
    flow, refusal = None, None
    with opened_files() as opened:
        try:
            flow = _import(entrypoint)
        except BaseException as error:  # Whatever the code of a flow does: the run is to meet it, not this process.
            refusal = f"its code raises {type(error).__name__} when it is imported"
    script = os.path.abspath(entrypoint.rsplit(":", 1)[0])
    files = signatures({path for path in {*opened, *of_modules(), script} if os.path.isfile(path)}, began)
    return Flow(flow, files, refusal or _unforkable(before))


def _import(entrypoint: str) -> Any:
    from prefect.flow_engine import _load_flow_from_runtime_entrypoint

    return _load_flow_from_runtime_entrypoint(entrypoint)


def _unforkable(before: set[str]) -> str | None:
    """Why a fork of this process would share what each run has to have of its own."""
    # Libraries that can be forked end their threads before a fork, and begin them anew when they are needed.
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    if len(os.listdir("/proc/self/task")) > 1:
        return "its code starts threads when it is imported"
    if opened := _descriptors() - before:
        return f"its code keeps {sorted(opened)[0].partition(':')[0]} open when it is imported"
    return None


def _descriptors() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            # The descriptor of the listing itself.
            continue
        if not target.startswith("/dev/"):
            found.add(f"a {'socket' if target.startswith('socket') else 'file'}:{number}:{target}")
    return found
