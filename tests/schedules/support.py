"""Helpers for the tests of schedules: workflows without a worker, and their schedules."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx

from tests.support.stack import Api, PrefectStack

# A pool without a worker: runs that are planned there stay planned.
IDLE_POOL = "idle"
# The first of January, so that nothing becomes due during a test.
FAR_AWAY = "0 3 1 1 *"

PARAMETERS = {
    "type": "object",
    "title": "Parameters",
    "properties": {
        "week": {"type": "string", "title": "week", "position": 0},
        "tier": {"type": "string", "title": "tier", "position": 1, "enum": ["OTC", "T1"], "default": "OTC"},
    },
    "required": ["week"],
}


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Workflow:
    """A flow with its own deployment on a pool that no worker serves."""

    stack: PrefectStack
    name: str
    flow_id: str
    own: dict[str, Any]

    def deploy(self, name: str, **fields: Any) -> dict[str, Any]:
        """Create or overwrite a deployment of the flow, as `prefect deploy` does."""
        body = {
            "name": name,
            "flow_id": self.flow_id,
            "work_pool_name": IDLE_POOL,
            "entrypoint": "flows/some.py:flow",
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": "/srv/code"}}],
            "parameter_openapi_schema": PARAMETERS,
            **fields,
        }
        made: dict[str, Any] = self.stack.post("/deployments/", body)
        return made

    def read(self, deployment_id: str) -> dict[str, Any]:
        """A deployment as Prefect has it now."""
        found: dict[str, Any] = self.stack.get(f"/deployments/{deployment_id}")
        return found

    def planned(self, deployment_id: str) -> list[dict[str, Any]]:
        """The planned runs that have not started, in order of time."""
        wanted = {
            "flow_runs": {"deployment_id": {"any_": [deployment_id]}, "state": {"type": {"any_": ["SCHEDULED"]}}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        runs: list[dict[str, Any]] = self.stack.post("/flow_runs/filter", wanted)
        return runs


def ensure_pool(stack: PrefectStack, name: str) -> None:
    """Create a pool that no worker serves, if it does not exist."""
    if not stack.post("/work_pools/filter", {"work_pools": {"name": {"any_": [name]}}}):
        stack.post("/work_pools/", {"name": name, "type": "process"})


def make_workflow(stack: PrefectStack) -> Workflow:
    """A workflow that no other test uses."""
    ensure_pool(stack, IDLE_POOL)
    name = f"idle.{uuid4().hex[:10]}"
    workflow = Workflow(stack, name, stack.flow_id(name), {})
    workflow.own = workflow.deploy(name)
    return workflow


@dataclass
class Schedules:
    """Creates and changes schedules over one API."""

    api: Api
    workflow: Workflow
    names: list[str] = field(default_factory=list)

    def body(self, **fields: Any) -> dict[str, Any]:
        """A valid body, changed by `fields`."""
        timing = {} if "interval_seconds" in fields else {"cron_expression": FAR_AWAY}
        return {
            "name": f"sched-{uuid4().hex[:10]}",
            "target_type": "WORKFLOW",
            "target_name": self.workflow.name,
            "target_params": {"week": "2026-01-05"},
            **timing,
            **fields,
        }

    def post(self, **fields: Any) -> httpx.Response:
        """Send the request that creates a schedule."""
        return self.api.client.post("/schedules", json=self.body(**fields))

    def make(self, **fields: Any) -> str:
        """Create a schedule and return its id."""
        response = self.post(**fields)
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def get(self, id_or_name: str) -> dict[str, Any]:
        """A schedule as the API shows it."""
        found: dict[str, Any] = self.api.get(f"/schedules/{id_or_name}")
        return found

    def patch(self, id_or_name: str, **fields: Any) -> dict[str, Any]:
        """Change a schedule."""
        response = self.api.client.patch(f"/schedules/{id_or_name}", json=fields)
        assert response.status_code == 200, response.text
        changed: dict[str, Any] = response.json()
        return changed

    def act(self, id_or_name: str, action: str) -> dict[str, Any]:
        """Enable or disable a schedule."""
        response = self.api.client.post(f"/schedules/{id_or_name}/{action}")
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer
