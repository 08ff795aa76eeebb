"""The whole of Spine as the tests use it: Prefect's server, a worker, and API processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import yaml
from spine.auth.bootstrap import ensure_admin_key
from spine.settings import Settings

from tests.support.databases import migrate
from tests.support.nursery import serving_process
from tests.support.prefect_database import PrefectTables, prefect_database, prefect_tables
from tests.support.prefect_processes import prefect_environment, prefect_server, prefect_worker
from tests.support.processes import PROJECT, free_port, wait_for_http, wait_until
from tests.support.web import LONGEST_OUTAGE, PATIENCE, PLAIN, Patient

ADMIN_KEY = "an-admin-key-that-only-the-tests-know"
DEMO = PROJECT / "tests" / "demo"
# Wrong keys that tests may send from the one address of this machine.
MANY = "1000000"
FINAL = {"COMPLETED", "FAILED", "CANCELLED"}


@dataclass
class PrefectStack:
    """A Prefect server with one worker, and a client that speaks to its REST API directly."""

    url: str
    home: Path
    environment: dict[str, str]
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        # The server closes a connection that was idle for five seconds, perhaps just when it is used again.
        idle = httpx.Limits(keepalive_expiry=1)
        self.http = httpx.Client(base_url=self.url, timeout=LONGEST_OUTAGE, verify=PLAIN, limits=idle)

    def __reduce__(self) -> tuple[Any, ...]:
        return PrefectStack, (self.url, self.home, self.environment)

    def get(self, path: str) -> Any:
        """GET an object of Prefect's API."""
        response = self.http.get(f"{self.url}{path}")
        response.raise_for_status()
        return response.json()

    def post(self, path: str, body: Any = None) -> Any:
        """POST to Prefect's API."""
        return self._change("POST", path, body)

    def patch(self, path: str, body: Any) -> None:
        """PATCH an object of Prefect's API."""
        self._change("PATCH", path, body)

    def delete(self, path: str) -> None:
        """DELETE an object of Prefect's API."""
        self._change("DELETE", path, None)

    def _change(self, method: str, path: str, body: Any) -> Any:
        """Send a request again where Prefect answers 503: on SQLite it does so when many write at once."""
        answers: list[httpx.Response] = []

        def answered() -> bool:
            answers[:] = [self.http.request(method, f"{self.url}{path}", json=body)]
            return answers[0].status_code != httpx.codes.SERVICE_UNAVAILABLE

        wait_until(answered, "Prefect's database to be free", LONGEST_OUTAGE)
        assert answers[0].is_success, answers[0].text
        return answers[0].json() if answers[0].content else None

    def cli(self, *arguments: str, cwd: Path = PROJECT) -> str:
        """Run a command of Prefect's command line and give its output."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            env=self.environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def deploy_own_flows(self) -> dict[str, str]:
        """Deploy Spine's own flows, as CI would; give what was done by deployment."""
        command = [sys.executable, "-P", "-m", "spine.cli", "deploy"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(line.split() for line in done.stdout.splitlines())

    def flow_id(self, name: str) -> str:
        """The id of the flow with this name, made when there is none."""
        return str(self.post("/flows/", {"name": name})["id"])

    def deployment(self, flow: str, name: str) -> dict[str, Any]:
        """A deployment by flow and name."""
        found: dict[str, Any] = self.get(f"/deployments/name/{flow}/{name}")
        return found

    def copy_deployment(self, name: str, pool: str = "spine") -> str:
        """Make a workflow that runs the same code under a name of its own, on any pool; give the name."""
        found, copy = self.deployment(name, name), f"copy.{uuid4().hex[:10]}"
        kept = ("entrypoint", "path", "pull_steps", "parameter_openapi_schema", "enforce_parameter_schema")
        body = {"name": copy, "flow_id": self.flow_id(copy), "work_pool_name": pool}
        self.post("/deployments/", {**body, **{field: found[field] for field in kept}})
        return copy

    def logged(self, run_id: str) -> list[str]:
        """The messages of a run's log, in order."""
        which = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"}
        return [entry["message"] for entry in self.post("/logs/filter", which)]

    def tables(self) -> AbstractContextManager[PrefectTables]:
        """The tables of its database, in a transaction."""
        return prefect_tables(self.environment, self.home)

    def make_run(self, flow_id: str, state: str = "COMPLETED", **fields: Any) -> str:
        """Store a flow run without running anything."""
        body = {"flow_id": flow_id, "state": {"type": state}, **fields}
        return str(self.post("/flow_runs/", body)["id"])


@dataclass
class Api:
    """A running API process and a client with the admin key."""

    url: str
    process: psutil.Process
    settings: Settings
    log: Path
    is_patient: bool = False
    client: httpx.Client = field(init=False)
    # The text of every answer to `client`.
    answers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = self.as_key(ADMIN_KEY)

    def __reduce__(self) -> tuple[Any, ...]:
        return _api_elsewhere, (self.url, self.process.pid, self.settings, self.log, self.is_patient)

    @property
    def database_url(self) -> str | None:
        """The URL of its PostgreSQL; None on SQLite."""
        return self.settings.database_url.get_secret_value() if self.settings.database_url else None

    def as_key(self, key: str) -> httpx.Client:
        """A client that sends this API key."""
        hooks = {"response": [self._keep]}
        return httpx.Client(
            base_url=f"{self.url}/api/v1",
            headers={"X-API-Key": key},
            timeout=PATIENCE,
            event_hooks=hooks,
            verify=PLAIN,
            transport=Patient(verify=PLAIN) if self.is_patient else None,
        )

    def patient(self) -> "Api":
        """The same API with clients that come again after a 503, for tests that are not about outages."""
        return replace(self, is_patient=True)

    def _keep(self, response: httpx.Response) -> None:
        response.read()
        self.answers.append(f"{response.headers} {response.text}")

    def get(self, path: str, **query: Any) -> Any:
        """GET a body that must be there."""
        response = self.client.get(path, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    def trigger(self, workflow: str, **params: Any) -> str:
        """Start a run and give its id."""
        response = self.client.post(f"/workflows/trigger/{workflow}", json={"params": params})
        assert response.status_code == 201, response.text
        return str(response.json()["run_id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """The detail of a run."""
        detail: dict[str, Any] = self.get(f"/workflows/runs/{run_id}")
        return detail

    def wait_for(self, run_id: str, *statuses: str, seconds: float = 90) -> dict[str, Any]:
        """The detail of a run, once it has one of these statuses (by default: once it has ended)."""
        wanted = set(statuses) or FINAL
        found: list[dict[str, Any]] = []

        def reached() -> bool:
            found[:] = [self.run(run_id)]
            return found[0]["status"] in wanted

        try:
            wait_until(reached, f"run {run_id} to become {wanted}", seconds, every=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {found[0]}") from None
        return found[0]


def _api_elsewhere(url: str, pid: int, settings: Settings, log: Path, is_patient: bool) -> Api:
    """An API that another test process has started."""
    return Api(url, psutil.Process(pid), settings, log, is_patient)


@contextmanager
def bare_stack(folder: Path, *, on_sqlite: bool = False) -> Iterator[PrefectStack]:
    """A server with nothing in it, on SQLite or on whatever there is."""
    environment = prefect_environment(folder / "prefect", free_port())
    databases = nullcontext(dict[str, str]()) if on_sqlite else prefect_database()
    with databases as database, prefect_server({**environment, **database}, folder / "prefect-server.log"):
        every = {**os.environ, **environment, **database}
        yield PrefectStack(environment["PREFECT_API_URL"], folder / "prefect", every)


@contextmanager
def prefect_stack(folder: Path) -> Iterator[PrefectStack]:
    """A server, a worker, and the project's and the demo's deployments."""
    with ExitStack() as cleanup:
        stack = cleanup.enter_context(bare_stack(folder))
        stack.post("/work_pools/", {"name": "spine", "type": "spine"})
        with ThreadPoolExecutor() as pool:
            for deploying in (pool.submit(_deploy_files, stack, folder), pool.submit(stack.deploy_own_flows)):
                deploying.result()
        _switch_off_schedules(stack)
        cleanup.enter_context(prefect_worker(stack.environment, folder / "worker.log"))
        yield stack


def _deploy_files(stack: PrefectStack, folder: Path) -> None:
    """Deploy what the files of the project and of the demo list, with one command for both."""
    files = [yaml.safe_load((place / "prefect.yaml").read_text()) for place in (PROJECT, DEMO)]
    both = {"name": "tests", "deployments": [entry for file in files for entry in file["deployments"]]}
    (folder / "prefect.yaml").write_text(yaml.safe_dump(both))
    stack.cli("deploy", "--all", "--no-prompt", "--prefect-file", str(folder / "prefect.yaml"))


def _switch_off_schedules(stack: PrefectStack) -> None:
    """Leave the tests of schedules to their own; those of the project have slugs, so that they stay off."""
    for deployment in stack.post("/deployments/filter"):
        for schedule in deployment["schedules"]:
            stack.patch(f"/deployments/{deployment['id']}/schedules/{schedule['id']}", {"active": False})


# An API of a test leaves Prefect in peace unless it follows on purpose: a follower reads what changes all the time.
ALONE = {"SPINE_FOLLOW_RUNS": "false"}
FOLLOWING = {"SPINE_FOLLOW_RUNS": "true"}


def settings_of(folder: Path, database_url: str | None, **more: str) -> Settings:
    """The settings of an API with the variables `more`, on a migrated database with the admin key."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {name.removeprefix("SPINE_").lower(): value for name, value in more.items() if name.startswith("SPINE_")}
    given = {"wrong_keys_per_minute": MANY, **given}
    given |= {"home": str(folder), "api_key": ADMIN_KEY, **({"database_url": database_url} if database_url else {})}
    settings = Settings.model_validate(given)
    migrate(settings.sqlalchemy_url)
    ensure_admin_key(settings)
    return settings


@contextmanager
def api_process(
    prefect_url: str, prefect_home: Path, folder: Path, database_url: str | None = None, **more: str
) -> Iterator[Api]:
    """An API process that answers, on a migrated database with the admin key; it follows Prefect if `more` says so."""
    more = {**ALONE, **more}
    settings = settings_of(folder, database_url, **more)
    environment = {
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_API_URL": prefect_url,
        "PYTHONTZPATH": "",
        "SPINE_HOME": str(folder),
        "SPINE_API_KEY": ADMIN_KEY,
        "SPINE_WRONG_KEYS_PER_MINUTE": MANY,
        **({"SPINE_DATABASE_URL": database_url} if database_url else {}),
        **more,
    }
    port = free_port()
    log = folder / f"api-{uuid4().hex[:6]}.log"
    with serving_process(["--port", str(port)], environment, log) as process:
        wait_for_http(f"http://127.0.0.1:{port}/health/live", process, log)
        yield Api(f"http://127.0.0.1:{port}", process, settings, log)
