"""Compares what code has observed in a forked run with what it has observed in a new interpreter.

Where the two may differ, the reason is given here; `deployments/README.md` lists the same for users.
"""

import subprocess
import sys
from typing import Any
from uuid import uuid4

from tests.worker.pool import Pool, Run

# Neither the recorder of imports nor the objects that the collector leaves alone can be hidden, nor the command line
# of a process that was forked and not started.
_OF_FORKING = {"finders", "profile", "frozen objects", "command"}
# `multiprocessing` and Prefect start threads when they like.
_AT_RANDOM = {"threads", "inheritable"}
# Packages that Prefect imports late, and the fork servers.
_IMPORTED_IN_ADVANCE = {"graphviz", "spine_worker"}
_STREAMS = ("stdin", "stdout", "stderr")
# Of the tests and their two workers, and what a spine worker withholds or adds instead.
_OF_WORKER = ("PREFECT_WORKER_", "PREFECT_SERVER_DATABASE_", "PREFECT_API_DATABASE_", "SPINE_PROTECTED_ENDPOINTS")


def in_new_interpreter(pool: Pool, function: str, environment: dict[str, str]) -> dict[str, Any]:
    """What a flow observes when its run is started as Prefect's process worker starts it, with these variables."""
    deployment = pool.deployment(function)["id"]
    name = f"{uuid4().hex}.jsonl"
    # No worker takes a run that is pending.
    body = {"parameters": {"path": str(pool.folder / name)}, "state": {"type": "PENDING"}}
    run_id = pool.stack.post(f"/deployments/{deployment}/create_flow_run", body)["id"]
    engine = subprocess.Popen(
        [sys.executable, "-m", "prefect.engine"],
        cwd=pool.project,
        env={**environment, "PREFECT__FLOW_RUN_ID": run_id},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    output, _ = engine.communicate(timeout=120)
    assert engine.returncode == 0, output
    return pool.of(run_id, name).fact


def differences(pool: Pool, one: dict[str, Any], other_pool: Pool, other: dict[str, Any]) -> dict[str, Any]:
    """The facts that are not the same, with both values."""
    found = {}
    for stage in ("import", "run"):
        first, second = _comparable(one, stage, pool), _comparable(other, stage, other_pool)
        for name in sorted(first.keys() | second.keys()):
            if first.get(name) != second.get(name):
                found[f"{stage}: {name}"] = (
                    _only(first.get(name), second.get(name)),
                    _only(second.get(name), first.get(name)),
                )
    return found


def _only(value: Any, other: Any) -> Any:
    """Of a list what the other list does not have, unless only the order differs."""
    if isinstance(value, list) and isinstance(other, list):
        return [one for one in value if one not in other] or value[:9]
    return value


def _comparable(facts: dict[str, Any], stage: str, pool: Pool) -> dict[str, Any]:
    facts = {name: value for name, value in facts[stage].items() if name not in _OF_FORKING | {"modules"}}
    if stage == "run":
        facts = {name: value for name, value in facts.items() if name not in _AT_RANDOM}
    else:
        # What the engine binds after it has begun a run.
        del facts["main's names"]
    facts["packages"] = [
        name for name in facts["packages"] if name not in _IMPORTED_IN_ADVANCE and not name.startswith("_sysconfigdata")
    ]
    for name in _STREAMS:
        # Output goes where the worker's output goes, and input is empty; Prefect uses pipes.
        facts[name] = {key: value for key, value in facts[name].items() if key != "kind"}
    for name in ("environment", "settings"):
        facts[name] = _variables(facts[name], stage)
    return {name: _without_places(value, pool) for name, value in facts.items()}


def _variables(variables: dict[str, str], stage: str) -> dict[str, str]:
    """Variables without those of the worker; those of a single run without their values, and only in the run."""
    kept = {name: value for name, value in variables.items() if not name.startswith(_OF_WORKER)}
    if stage == "import":
        return {name: value for name, value in kept.items() if not name.startswith("PREFECT__")}
    return {name: "" if name.startswith("PREFECT__") else value for name, value in kept.items()}


def _without_places(value: Any, pool: Pool) -> Any:
    if isinstance(value, str):
        return value.replace(str(pool.folder), "<folder>").replace(pool.name, "<pool>")
    if isinstance(value, list):
        return [_without_places(one, pool) for one in value]
    if isinstance(value, dict):
        return {key: _without_places(one, pool) for key, one in value.items()}
    return value


def missing_modules(forked: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The modules that a new interpreter has imported at some point and a forked run has not."""
    return sorted(
        {one for stage in ("import", "run") for one in set(new[stage]["modules"]) - set(forked[stage]["modules"])}
    )


def shared_draws(runs: list[Run]) -> set[Any]:
    """Random values that more than one of the runs has drawn."""
    drawn = [draw for run in runs for draw in run.fact["drawn"]]
    return {one for one in drawn if drawn.count(one) > 1}
