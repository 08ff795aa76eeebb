"""The calls to Prefect, by their names. They are made in a process that imports Prefect's client."""

from collections.abc import Callable
from typing import Any

from spine.up.plan import WorkerType
from spine.up.prefect_setup import crash_interrupted_runs, deploy_to_prefect, ensure_work_pool, last_heartbeat


def _heartbeat(api_url: str, pool: str, worker: str) -> str | None:
    found = last_heartbeat(api_url, pool, worker)
    return found.isoformat() if found else None


PREFECT_CALLS: dict[str, Callable[..., Any]] = {
    "ensure_work_pool": lambda api_url, name, worker: ensure_work_pool(api_url, name, WorkerType(worker)),
    "crash_interrupted_runs": crash_interrupted_runs,
    "last_heartbeat": _heartbeat,
    "deploy": lambda work_pool, move: deploy_to_prefect(work_pool, move=move),
}
