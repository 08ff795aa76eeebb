"""Automations and concurrency limits of Prefect on SQLite, while fifty runs that began at once are executed."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.prefect_processes import prefect_environment, prefect_server, prefect_worker
from tests.support.processes import free_port, wait_until
from tests.support.stack import PrefectStack

pytestmark = pytest.mark.slow

RUNS, SLOTS, LIMIT = 50, 3, "desks"
# Each run writes when it had a slot. Clocks of one machine agree.
FLOWS = """
import json, os, time
from pathlib import Path
from prefect import flow
from prefect.concurrency.sync import concurrency

@flow
def takes_a_slot(number: int) -> None:
    with concurrency("desks", occupy=1):
        began = time.monotonic()
        time.sleep(0.2)
        ended = time.monotonic()
    Path(f"slot-{number}.json").write_text(json.dumps([began, ended]))

@flow
def reacts() -> None:
    Path(f"reaction-{os.getpid()}").touch()
"""


def deploy(stack: PrefectStack, folder: Path, name: str) -> dict[str, Any]:
    """Deploy a flow of the file, which runs in its folder."""
    flow = stack.flow_id(name)
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}
    body = {"name": name, "flow_id": flow, "work_pool_name": "spine", "pull_steps": [step]}
    made: dict[str, Any] = stack.post(
        "/deployments/", {**body, "entrypoint": f"flows.py:{name}", "enforce_parameter_schema": False}
    )
    return made


def react_once_to_all_of(stack: PrefectStack, flow: str, deployment: str) -> None:
    """Let an automation run this deployment once as many runs of the flow as this test starts are completed."""
    of_flow = {"prefect.resource.id": f"prefect.flow.{flow}", "prefect.resource.role": "flow"}
    trigger = {
        "type": "event",
        "posture": "Reactive",
        "expect": ["prefect.flow-run.Completed"],
        "match_related": of_flow,
        "threshold": RUNS,
        "within": 3600,
    }
    action = {"type": "run-deployment", "source": "selected", "deployment_id": deployment, "parameters": {}}
    stack.post("/automations/", {"name": "all are done", "trigger": trigger, "actions": [action], "enabled": True})


def trigger_all(stack: PrefectStack, deployment: str) -> set[str]:
    """Start all runs at once; their ids."""

    def start(number: int) -> str:
        client = PrefectStack(stack.url, stack.home, stack.environment)
        return str(client.post(f"/deployments/{deployment}/create_flow_run", {"parameters": {"number": number}})["id"])

    with ThreadPoolExecutor(RUNS) as clients:
        return set(clients.map(start, range(RUNS)))


def states(stack: PrefectStack, deployment: str) -> list[str]:
    found = stack.post("/flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}, "limit": 200})
    return [run["state_type"] for run in found]


def most_at_once(held: list[tuple[float, float]]) -> int:
    """How many of these spans overlap at most."""
    changes = sorted([*((ended, -1) for _, ended in held), *((began, 1) for began, _ in held)])
    taken, most = 0, 0
    for _, change in changes:
        taken += change
        most = max(most, taken)
    return most


def test_fifty_runs_at_once_keep_a_concurrency_limit_and_fire_an_automation_once(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "flows.py").write_text(FLOWS)
    environment = prefect_environment(tmp_path / "prefect", free_port())
    stack = PrefectStack(environment["PREFECT_API_URL"], tmp_path, environment)
    with prefect_server(environment, tmp_path / "server.log"):
        stack.post("/work_pools/", {"name": "spine", "type": "process"})
        stack.post("/v2/concurrency_limits/", {"name": LIMIT, "limit": SLOTS})
        working, reacting = deploy(stack, folder, "takes_a_slot"), deploy(stack, folder, "reacts")
        react_once_to_all_of(stack, working["flow_id"], reacting["id"])
        with prefect_worker(environment, tmp_path / "worker.log"):
            started = trigger_all(stack, working["id"])
            assert len(started) == RUNS
            wait_until(lambda: states(stack, working["id"]).count("COMPLETED") == RUNS, "all runs to be completed", 400)
            wait_until(lambda: states(stack, reacting["id"]) == ["COMPLETED"], "the automation to have run", 120)
        held = [tuple(json.loads(path.read_text())) for path in folder.glob("slot-*.json")]
        assert len(held) == RUNS
        assert 1 < most_at_once(held) <= SLOTS
        assert stack.get(f"/v2/concurrency_limits/{LIMIT}")["active_slots"] == 0
        assert states(stack, reacting["id"]) == ["COMPLETED"]
        assert len(list(folder.glob("reaction-*"))) == 1
        assert "database is locked" not in (tmp_path / "server.log").read_text()
