"""A work pool with a worker of one type, a project and deployments of its own."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import yaml
from prefect.workers.process import ProcessWorker

from tests.support.prefect_processes import prefect_worker
from tests.support.processes import wait_until
from tests.support.stack import PrefectStack

PROJECT = Path(__file__).with_name("project")
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass
class Pool:
    """A pool and its worker: starts runs and reports on them."""

    kind: str
    stack: PrefectStack
    folder: Path
    name: str
    # More environment variables of its workers.
    environment: dict[str, str] = field(default_factory=dict)
    worker: psutil.Popen = field(init=False)

    @property
    def project(self) -> Path:
        """The directory of the flows' code, which a test may edit."""
        return self.folder / "project"

    @property
    def log(self) -> Path:
        """What the worker and its runs print."""
        return self.folder / "worker.log"

    def deploy(self, *entrypoints: str, **more: Any) -> None:
        """Deploy flows, each under the name of its function."""
        environment = {"MARK": self.name, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
        entries = [
            {
                "name": f"{self.name}-{entrypoint.partition(':')[2]}",
                "entrypoint": entrypoint,
                "work_pool": {
                    "name": self.name,
                    "job_variables": {"env": environment},
                },
                **more,
            }
            for entrypoint in entrypoints
        ]
        (self.project / "prefect.yaml").write_text(yaml.safe_dump({"name": self.name, "deployments": entries}))
        self.stack.cli("deploy", "--all", "--no-prompt", cwd=self.project)

    def deployment(self, function: str) -> dict[str, Any]:
        """The deployment of a flow function."""
        return self.stack.deployment(function.replace("_", "-"), f"{self.name}-{function}")

    def start(self, function: str, variables: dict[str, Any] | None = None, **parameters: Any) -> "Run":
        """Start a run, with job variables of its own. Its flow gets the path of a file for its facts."""
        name = f"{uuid4().hex}.jsonl"
        body = {"parameters": {"path": str(self.folder / name), **parameters}, "job_variables": variables or {}}
        made = self.stack.post(f"/deployments/{self.deployment(function)['id']}/create_flow_run", body)
        return self.of(made["id"], name)

    def of(self, run_id: str, file: str) -> "Run":
        """A run that was started, and that records facts in this file."""
        return Run(self.stack, run_id, self.folder / file)

    def run(self, function: str, **parameters: Any) -> "Run":
        """Start a run and wait until it has completed."""
        run = self.start(function, **parameters)
        assert run.ended() == "COMPLETED", run.state
        return run


@dataclass(frozen=True)
class Run:
    """A run that was started, and the file of its facts."""

    stack: PrefectStack
    id: str
    path: Path

    @property
    def state(self) -> dict[str, Any]:
        """Its state in Prefect."""
        state: dict[str, Any] = self.stack.get(f"/flow_runs/{self.id}")["state"]
        return state

    @property
    def facts(self) -> list[dict[str, Any]]:
        """What it has recorded, in order."""
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    @property
    def fact(self) -> dict[str, Any]:
        """The first that it has recorded."""
        wait_until(lambda: bool(self.facts), f"run {self.id} to record something", 180)
        return self.facts[0]

    def becomes(self, *types: str, seconds: float = 90) -> str:
        """Wait until the type of its state is one of these, and return it."""
        found: list[str] = []

        def reached() -> bool:
            found[:] = [self.state["type"]]
            return found[0] in types

        wait_until(reached, f"run {self.id} to become {types}", seconds)
        return found[0]

    def ended(self, seconds: float = 90) -> str:
        """Wait until it has ended, and return the type of its state."""
        return self.becomes(*ENDED, seconds=seconds)

    def set_state(self, state: str, name: str | None = None, *, force: bool = False) -> None:
        """Set its state, as the buttons of Prefect's UI do."""
        body = {"state": {"type": state, "name": name}, "force": force}
        self.stack.post(f"/flow_runs/{self.id}/set_state", body)

    def logged(self) -> list[str]:
        """The messages of its log."""
        return self.stack.logged(self.id)


@contextmanager
def served_pool(kind: str, stack: PrefectStack, folder: Path, **environment: str) -> Iterator[Pool]:
    """A pool with a worker and a copy of the project."""
    folder.mkdir()
    pool = Pool(kind, stack, folder, f"{kind}-{uuid4().hex[:6]}", environment)
    shutil.copytree(PROJECT, pool.project, ignore=shutil.ignore_patterns("__pycache__"))
    template = ProcessWorker.get_default_base_job_template()
    of_pool = template["variables"]["properties"]
    of_pool["env"]["default"] = {"POOL": pool.name, "MARK": "of the pool"}
    of_pool["working_dir"]["default"] = str(folder)
    stack.post("/work_pools/", {"name": pool.name, "type": kind, "base_job_template": template})
    with serving(pool):
        yield pool


@contextmanager
def serving(pool: Pool) -> Iterator[None]:
    """A worker of the pool."""
    with prefect_worker({**pool.stack.environment, **pool.environment}, pool.log, pool.name, pool.kind) as pool.worker:
        yield


def edit(file: Path, old: str, new: str) -> None:
    """Change a file but not its time and size, so that Python takes its bytecode as up to date."""
    text, before = file.read_text(), file.stat()
    assert old in text
    file.write_text(text.replace(old, new))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
