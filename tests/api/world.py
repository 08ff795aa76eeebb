"""Two desks on one Spine: what a key for the domains `seen.*` may see, and everything else, named `hidden`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from spine.tables.base import new_id, utc_now
from spine.tables.cache import CacheBlob, CacheEntry
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from tests.support.stack import Api, PrefectStack

POOL = "desks"
# The first of January, so that nothing becomes due during a test.
FAR_AWAY = "0 3 1 1 *"


@dataclass
class Desk:
    """One of everything, of one domain or of none."""

    domain: str | None
    workflow: str
    schedule: str
    # The ids and names by which paths take each kind of thing.
    keys: dict[str, list[str]] = field(default_factory=dict)


class World:
    """Makes desks on one API with one Prefect."""

    def __init__(self, api: Api, stack: PrefectStack, files: Path) -> None:
        self.api = api
        self.stack = stack
        self.files = files
        self._flows: list[str] = []
        if not stack.post("/work_pools/filter", {"work_pools": {"name": {"any_": [POOL]}}}):
            stack.post("/work_pools/", {"name": POOL, "type": "process"})
        self.deploy("spine.fetch_source", None)

    def close(self) -> None:
        """Delete the flows, with their deployments and runs."""
        for flow_id in self._flows:
            self.stack.delete(f"/flows/{flow_id}")

    def deploy(self, name: str, domain: str | None) -> dict[str, Any]:
        """A workflow that no worker runs."""
        flow_id = self.stack.flow_id(name)
        self._flows.append(flow_id)
        steps = [{"prefect.deployments.steps.set_working_directory": {"directory": "/srv/code"}}]
        body = {
            "name": name,
            "flow_id": flow_id,
            "work_pool_name": POOL,
            "entrypoint": "a.py:flow",
            "pull_steps": steps,
        }
        tags = [f"domain:{domain}"] if domain else []
        made: dict[str, Any] = self.stack.post("/deployments/", {**body, "tags": tags})
        return made

    def create(self, path: str, **body: Any) -> str:
        """Make something with the admin's key and give its id."""
        response = self.api.client.post(path, json=body)
        assert response.status_code == 201, response.text
        made = response.json()
        return str(made.get("id") or made.get("run_id") or made["fetch_id"])

    def desk(self, side: str, domain: str | None) -> Desk:
        """A desk whose things all have `side` in their names."""
        name = f"{side}-{uuid4().hex[:8]}"
        of_domain = {"domain": domain} if domain else {}
        own = self.deploy(f"{name}-flow", domain)
        schedule = {"name": f"{name}-schedule", "target_type": "WORKFLOW", "target_name": f"{name}-flow"}
        schedule_id = self.create("/schedules", **schedule, cron_expression=FAR_AWAY)
        started = self.create(f"/workflows/trigger/{name}-flow")
        tags = {"tags": [f"domain:{domain}"]} if domain else {}
        failed = self.stack.make_run(own["flow_id"], "FAILED", name=f"{name}-run", deployment_id=own["id"], **tags)
        (self.files / f"{name}.csv").write_text("a\n1\n")
        config = {"path": f"{name}.csv"}
        source_id = self.create("/sources", name=f"{name}-source", source_type="file", config=config, **of_domain)
        fetch_id = self.create(f"/sources/{name}-source/fetch")
        alert = {"severity": "ERROR", "title": f"{name}-alert", "message": name, "source": f"{name}-raiser"}
        alert_id = self.create("/alerts", **alert, **of_domain)
        channel = {"name": f"{name}-channel", "channel_type": "webhook", "config": {"url": "http://127.0.0.1:9/a"}}
        globs = {"domains": [domain]} if domain else {}
        channel_id = self.create("/alerts/channels", **channel, **globs)
        return Desk(
            domain,
            f"{name}-flow",
            f"{name}-schedule",
            {
                "run_id": [failed, started],
                "workflow_name": [f"{name}-flow"],
                "schedule_id": [schedule_id, f"{name}-schedule"],
                "source_id": [source_id, f"{name}-source"],
                "fetch_id": [fetch_id],
                "entry_id": [self._store_content(source_id, name)],
                "alert_id": [alert_id],
                "channel_id": [channel_id, f"{name}-channel"],
            },
        )

    def connection(self) -> list[str]:
        """The id and name of a connection, which has no domain."""
        where = {"db_type": "postgresql", "host": "127.0.0.1", "port": 9, "database": "hidden"}
        return [self.create("/sources/connections", name="hidden-database", **where), "hidden-database"]

    def _store_content(self, source_id: str, name: str) -> str:
        """Rows of the cache, as a fetch stores them."""
        entry_id, content_hash = new_id(), uuid4().hex * 2
        url = self.api.settings.sqlalchemy_url
        engine = create_engine(url.set(drivername=url.drivername.replace("+aiosqlite", "")))
        with Session(engine) as session, session.begin():
            session.add(CacheBlob(content_hash=content_hash, size_bytes=4))
            session.flush()
            values = {"content_hash": content_hash, "size_bytes": 4, "name": name, "validators": {}, "position": 0}
            key = {"cache_key": f"{name}.csv", "key_hash": uuid4().hex * 2, "expires_at": utc_now()}
            session.add(CacheEntry(id=entry_id, source_id=source_id, **key, **values))
        engine.dispose()
        return entry_id


def pages_of(client: httpx.Client, path: str, **query: Any) -> list[dict[str, Any]]:
    """All rows of a list, after checking that the total counts them and nothing else."""
    response = client.get(path, params={"limit": 100, **query})
    assert response.status_code == 200, response.text
    page = response.json()
    assert page["pagination"]["total"] == len(page["data"])
    return list(page["data"])
