"""The two stacks that are measured in turns: `spine up`, and Prefect's own server with its process worker."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import psycopg
import yaml
from spine.up.home import read_records
from spine.up.processes import API, SERVER, WORKER
from sqlalchemy import make_url

from tests.support.postgres import MACHINE_URL, fresh_database
from tests.support.processes import free_port, running, wait_for_http, wait_until
from tests.support.stack import ADMIN_KEY, PrefectStack
from tests.support.web import PLAIN
from tests.up.support import CLEAN, RunningUp, running_up

FLOW_NAME = "bench.three_steps"
FLOW = f"""
from prefect import flow, task


@task
def step(number: int) -> int:
    return number + 1


@flow(name="{FLOW_NAME}")
def three_steps() -> int:
    return step(step(step(0)))
"""
SPINE, STOCK, POLLING = "Spine", "Prefect's server and process worker", "the same, polling each second"
# The access log, by which requests are counted.
LOGGED = {"PREFECT_SERVER_LOGGING_LEVEL": "INFO", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
_POOLS = {STOCK: "10", POLLING: "1"}


@dataclass
class Target:
    """A stack on which a run can be started, and its processes by what they do."""

    name: str
    prefect: PrefectStack
    server_log: Path
    roots: dict[str, psutil.Process]
    base_url: str
    headers: dict[str, str]
    path: str

    def client(self, connections: int = 100) -> httpx.AsyncClient:
        """A client for triggers, with as many connections as there are callers."""
        limits = httpx.Limits(max_connections=connections)
        return httpx.AsyncClient(
            base_url=self.base_url, headers=self.headers, timeout=300, limits=limits, verify=PLAIN, auth=self._auth
        )

    async def send(self, client: httpx.AsyncClient, key: str) -> httpx.Response:
        """Send the request for a run; two with the same key start one run."""
        if self.name == SPINE:
            return await client.post(self.path, json={"params": {}}, headers={"Idempotency-Key": key})
        return await client.post(self.path, json={"idempotency_key": key})

    def run_id(self, answer: httpx.Response) -> str:
        """The run that was started."""
        found: dict[str, Any] = answer.raise_for_status().json()
        return str(found["run_id" if self.name == SPINE else "id"])

    @property
    def _auth(self) -> httpx.Auth | None:
        return None if self.name == SPINE else self.prefect.http.auth


@contextmanager
def spine_stack(home: Path, output: Path, project: Path, **environment: str) -> Iterator[tuple[RunningUp, Target]]:
    """A `spine up` that is ready, with the flow of `project`."""
    given = {**LOGGED, "SPINE_API_KEY": ADMIN_KEY, **environment}
    with running_up(home, output, free_port(), free_port(), project, environment=given) as up:
        up.wait_ready()
        found = {name: psutil.Process(pid) for name, (pid, _) in read_records(home).items() if psutil.pid_exists(pid)}
        roots = {"server": found[SERVER], "API": found[API], "worker": found[WORKER], "spine up": up.process}
        yield (
            up,
            Target(
                SPINE,
                prefect_of(home, up.prefect_api),
                home / "logs" / f"{SERVER}.log",
                roots,
                f"{up.api}/api/v1",
                {"X-API-Key": ADMIN_KEY},
                f"/workflows/trigger/{FLOW_NAME}",
            ),
        )
        up.stop()


def prefect_of(home: Path, url: str) -> PrefectStack:
    """Prefect's API of a `spine up`, with its credential."""
    credential = (home / "prefect-auth").read_text().strip()
    environment = {**CLEAN, "PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": credential}
    prefect = PrefectStack(url, home / "prefect", environment)
    user, _, password = credential.partition(":")
    prefect.http.auth = httpx.BasicAuth(user, password)
    return prefect


@contextmanager
def stock_server(folder: Path) -> Iterator[tuple[PrefectStack, psutil.Popen, float]]:
    """`prefect server start` with its defaults, and the seconds until it answered."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    given = {**LOGGED, "PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": url}
    began = time.monotonic()
    log = folder / "server.log"
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running(command, given, log, cwd=folder) as process:
        wait_for_http(f"{url}/health", process, log)
        yield PrefectStack(url, folder / "prefect", {**CLEAN, **given}), process, time.monotonic() - began


@contextmanager
def stock_worker(prefect: PrefectStack, folder: Path, name: str) -> Iterator[tuple[psutil.Popen, float]]:
    """A process worker that has reported itself, and the seconds that it took."""
    log, pool = folder / f"worker-{_POOLS[name]}.log", pool_of(name)
    environment = {**prefect.environment, "PREFECT_WORKER_QUERY_SECONDS": _POOLS[name]}
    began = time.monotonic()
    command = ["prefect", "worker", "start", "--pool", pool, "--type", "process"]

    def is_online() -> bool:
        found = prefect.post(f"/work_pools/{pool}/workers/filter", {})
        return any(worker["status"] == "ONLINE" for worker in found)

    with running(command, environment, log, cwd=folder) as process:
        wait_until(is_online, "the worker to report itself", 60, every=0.1)
        yield process, time.monotonic() - began


def pool_of(name: str) -> str:
    """The work pool of a stock worker."""
    return f"stock-{_POOLS[name]}"


def deploy_stock(prefect: PrefectStack, project: Path, names: tuple[str, ...]) -> None:
    """Make the work pools, and deploy the flow to each."""
    pools = [pool_of(name) for name in names]
    for pool in pools:
        prefect.post("/work_pools/", {"name": pool, "type": "process"})
    (project / "stock.yaml").write_text(_prefect_yaml({pool: pool for pool in pools}))
    prefect.cli("deploy", "--all", "--no-prompt", "--prefect-file", "stock.yaml", cwd=project)


@contextmanager
def stock_stack(folder: Path, names: tuple[str, ...]) -> Iterator[dict[str, Target]]:
    """A server and workers of these names, in a folder with their deployments."""
    with ExitStack() as cleanup:
        prefect, server, _ = cleanup.enter_context(stock_server(folder))
        targets = {}
        for name in names:
            worker, _ = cleanup.enter_context(stock_worker(prefect, folder, name))
            deployment = prefect.deployment(FLOW_NAME, pool_of(name))["id"]
            roots: dict[str, psutil.Process] = {"server": server, "worker": worker}
            path = f"/deployments/{deployment}/create_flow_run"
            targets[name] = Target(name, prefect, folder / "server.log", roots, prefect.url, {}, path)
        yield targets


def write_project(folder: Path) -> Path:
    """A project with the flow of three steps that do nothing."""
    folder.mkdir(parents=True)
    (folder / "flow.py").write_text(FLOW)
    (folder / "prefect.yaml").write_text(_prefect_yaml({FLOW_NAME: "spine"}))
    return folder


def _prefect_yaml(pools: dict[str, str]) -> str:
    """The deployments of the flow by name, each with its work pool."""
    entrypoint = "flow.py:three_steps"
    listed = [{"name": name, "entrypoint": entrypoint, "work_pool": {"name": pool}} for name, pool in pools.items()]
    return yaml.safe_dump({"name": "bench", "deployments": listed})


@contextmanager
def postgresql_databases() -> Iterator[dict[str, str]]:
    """The variables that give a `spine up` two new databases on PostgreSQL, as `spine up --database` sets them."""
    with durable_database() as spine, durable_database() as prefect:
        yield {
            "SPINE_DATABASE_URL": spine,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": make_url(prefect)
            .set(drivername="postgresql+asyncpg")
            .render_as_string(hide_password=False),
            "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": "15",
        }


@contextmanager
def durable_database() -> Iterator[str]:
    """A new database whose commits wait for the disk, unlike those of the tests."""
    with fresh_database(MACHINE_URL) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            name = make_url(url).database
            connection.execute(f'ALTER DATABASE "{name}" RESET synchronous_commit'.encode())
        yield url


def fresh_key() -> str:
    """An idempotency key."""
    return f"bench-{os.getpid()}-{uuid4().hex}"
