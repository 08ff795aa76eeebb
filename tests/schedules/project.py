"""A project as CI has it, deployed with the real `prefect deploy`, and a watcher for it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.database import SessionFactory, make_engine, make_sessions
from spine.prefect.client import Deployment, Prefect
from spine.run_history.follower import following
from spine.schedules.watcher import ScheduleWatcher
from spine.settings import Settings
from spine.tables.audit import AuditEntry
from sqlalchemy import select

from tests.schedules.support import IDLE_POOL, ensure_pool
from tests.support.databases import migrate
from tests.support.processes import wait_until
from tests.support.stack import PrefectStack

Entry = dict[str, Any]


@dataclass
class Project:
    """A folder with `prefect.yaml` and `flows.py`, whose flows no other test uses and no worker runs."""

    stack: PrefectStack
    folder: Path
    prefix: str = field(default_factory=lambda: f"ci{uuid4().hex[:8]}")

    def deploy(self, source: str, entries: list[Entry]) -> None:
        """Deploy everything; `PREFIX` in `source` is replaced, so that the names of the flows are unique."""
        (self.folder / "flows.py").write_text("from prefect import flow\n" + source.replace("PREFIX", self.prefix))
        common = {"entrypoint": "flows.py:only", "work_pool": {"name": IDLE_POOL}}
        project = {"name": self.prefix, "deployments": [{**common, **entry} for entry in entries]}
        (self.folder / "prefect.yaml").write_text(yaml.safe_dump(project))
        self.stack.cli("deploy", "--all", "--no-prompt", cwd=self.folder)

    def deployed(self, name: str, flow: str = "only") -> Entry:
        """A deployment as Prefect has it."""
        return self.stack.deployment(f"{self.prefix}.{flow}", name)

    def all_deployed(self, flow: str = "only") -> dict[str, Entry]:
        """All deployments of a flow by name, as Prefect has them."""
        found = self.stack.post("/deployments/filter", {"flows": {"name": {"any_": [f"{self.prefix}.{flow}"]}}})
        return {one["name"]: one for one in found}

    def planned(self, *deployment_ids: Any) -> list[Entry]:
        """The runs that Prefect has planned of these deployments, in order, 200 at most."""
        of_these = {"deployment_id": {"any_": [str(one) for one in deployment_ids]}}
        wanted = {
            "flow_runs": {**of_these, "state": {"type": {"any_": ["SCHEDULED"]}}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        runs: list[Entry] = self.stack.post("/flow_runs/filter", wanted)
        return runs

    def switch(self, deployment_id: str, *, on: bool) -> None:
        """Pause or resume a deployment, as its switch in Prefect's UI does."""
        action = "resume_deployment" if on else "pause_deployment"
        self.stack.post(f"/deployments/{deployment_id}/{action}", None)

    def switch_row(self, deployment_id: str, row_id: str, *, on: bool) -> None:
        """Activate or deactivate one schedule, as its switch in Prefect's UI does."""
        self._change_row("PATCH", deployment_id, row_id, {"active": on})

    def replace_row(self, deployment_id: str, row_id: str, schedule: Entry) -> None:
        """Delete a schedule and add another one, as in Prefect's UI."""
        self._change_row("DELETE", deployment_id, row_id, None)
        self.stack.post(f"/deployments/{deployment_id}/schedules", [{"schedule": schedule, "active": True}])

    def _change_row(self, method: str, deployment_id: str, row_id: str, body: Entry | None) -> None:
        url = f"{self.stack.url}/deployments/{deployment_id}/schedules/{row_id}"

        def is_stored() -> bool:
            # Prefect on SQLite answers 503 when many write at once.
            answer = self.stack.http.request(method, url, json=body)
            assert answer.is_success or answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
            return answer.is_success

        wait_until(is_stored, "Prefect's database to be free", 30)


@contextmanager
def project(stack: PrefectStack, folder: Path) -> Iterator[Project]:
    """A project whose flows are deleted afterwards."""
    ensure_pool(stack, IDLE_POOL)
    made = Project(stack, folder)
    yield made
    for flow in stack.post("/flows/filter", {"flows": {"name": {"like_": made.prefix}}}):
        stack.http.delete(f"{stack.url}/flows/{flow['id']}")


@dataclass
class Watcher:
    """What an API process watches schedules with: a Prefect client, a database, and the watcher."""

    prefect: Prefect
    sessions: SessionFactory
    watcher: ScheduleWatcher = field(default_factory=ScheduleWatcher)

    async def check(self) -> None:
        """Let the watcher check once."""
        with following(self.sessions):
            await self.watcher.run(self.prefect, self.sessions)

    async def entries(self) -> list[AuditEntry]:
        """The audit trail of its database, oldest first."""
        async with self.sessions() as session:
            return list(await session.scalars(select(AuditEntry).order_by(AuditEntry.at, AuditEntry.id)))

    def restart(self) -> None:
        """Start with only the database, as a new process does."""
        self.watcher = ScheduleWatcher()

    async def read(self, deployment: Entry | str) -> Deployment:
        """A deployment as the services read it."""
        deployment_id = deployment if isinstance(deployment, str) else deployment["id"]
        return await self.prefect.read_deployment(UUID(deployment_id))


@asynccontextmanager
async def watcher(stack: PrefectStack, folder: Path) -> AsyncIterator[Watcher]:
    """A watcher with its own database."""
    url = Settings(home=folder / "spine").sqlalchemy_url
    migrate(url)
    engine = make_engine(url)
    try:
        with temporary_settings({PREFECT_API_URL: stack.url}):
            async with Prefect.connect(9) as prefect:
                yield Watcher(prefect, make_sessions(engine))
    finally:
        await engine.dispose()
