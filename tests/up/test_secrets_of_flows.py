"""What the flows of teams get from `spine up`: their sources, but neither the databases nor the keys."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from spine.errors import Unavailable
from spine.own_settings import keep_for_own_flows, own_settings, settings_path
from spine.up.home import credential_path, prepare_home
from spine.up.processes import of_home

from tests.sources.readers.support import settle
from tests.support.postgres import fresh_database
from tests.support.processes import free_port, variables_of, wait_until
from tests.up.support import RunningUp, running_up

FLOW = """
import json
import os
from pathlib import Path

from prefect import flow, task
from spine import read_source


@task
def rows() -> int:
    return read_source("trades").to_arrow().num_rows


@flow(name="team.reads")
def reads(path: str) -> None:
    everything = Path("/proc/self/environ").read_bytes().decode(errors="replace").split("\\0")
    own = [f"{name}={value}" for name, value in os.environ.items()]
    Path(path).write_text(json.dumps({"rows": rows(), "environment": sorted({*everything, *own})}))
"""
PREFECT_YAML = """
name: team
deployments:
  - name: team.reads
    entrypoint: flow.py:reads
    work_pool:
      name: spine
"""
KEY = Fernet.generate_key().decode()
ADMIN_KEY = "an-admin-key-for-the-flows-of-teams"


@pytest.fixture
def database(postgresql_url: str) -> Iterator[str]:
    with fresh_database(postgresql_url) as url:
        yield url


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "trades.csv").write_text("day,shares\n2026-01-05,1\n2026-01-06,2\n")
    (folder / "flow.py").write_text(FLOW)
    (folder / "prefect.yaml").write_text(PREFECT_YAML)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("worker", ["spine", "process"])
def test_a_flow_of_a_team_reads_a_source_and_has_no_secret_in_its_environment(
    worker: str, database: str, project: Path, tmp_path: Path
) -> None:
    home, facts = tmp_path / "home", tmp_path / "facts.json"
    secrets = {"SPINE_DATABASE_URL": database, "SPINE_SECRET_KEY": KEY, "SPINE_API_KEY": ADMIN_KEY}
    of_prefect = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{tmp_path}/prefect.db"}
    settle(project / "data" / "trades.csv")
    with running_up(
        home,
        tmp_path / "output.txt",
        free_port(),
        free_port(),
        cwd=project,
        options=("--worker", worker),
        environment={**secrets, **of_prefect},
    ) as started:
        started.wait_ready()
        assert stat.S_IMODE(settings_path(home).stat().st_mode) == 0o600
        source = {"name": "trades", "source_type": "file", "config": {"path": "trades.csv"}}
        assert call(started, "POST", "/sources", source).status_code == 201
        for workflow, params in (("team.reads", {"path": str(facts)}), ("spine.prune", {})):
            run = call(started, "POST", f"/workflows/trigger/{workflow}", {"params": params}).json()["run_id"]
            completes(started, f"/workflows/runs/{run}", "COMPLETED")
        fetch = call(started, "POST", "/sources/trades/fetch", None).json()["fetch_id"]
        completes(started, f"/sources/fetches/{fetch}", "SUCCESS")
        found = json.loads(facts.read_text())
        assert found["rows"] == 2
        hidden = [*secrets.values(), *of_prefect.values()]
        assert [one for one in found["environment"] if any(secret in one for secret in hidden)] == []
        # The runs, their fork servers and the worker itself; only the API and the command have them.
        knowing = [one for one in of_home(home) if KEY in json.dumps(variables_of(one))]
        assert [one.cmdline()[-1] for one in knowing if "serve" not in one.cmdline()] == []
        assert {"PREFECT_API_AUTH_STRING", "SPINE_HOME"} <= {one.partition("=")[0] for one in found["environment"]}
        assert credential_path(home).read_text().strip() not in started.output.replace(login(started), "")


def call(started: RunningUp, method: str, path: str, body: Any) -> httpx.Response:
    headers = {"X-API-Key": ADMIN_KEY}
    return httpx.request(method, f"{started.api}/api/v1{path}", json=body, headers=headers, timeout=30)


def completes(started: RunningUp, path: str, status: str) -> None:
    answers: list[dict[str, Any]] = []

    def ended() -> bool:
        answers[:] = [call(started, "GET", path, None).json()]
        return answers[0]["status"] not in ("PENDING", "RUNNING")

    wait_until(ended, f"{path} to end", 90, every=0.5)
    assert answers[0]["status"] == status, answers


def login(started: RunningUp) -> str:
    """The printed URL that logs a browser in."""
    return next(line.split()[-1] for line in started.output.splitlines() if "Prefect UI" in line)


def test_the_file_for_spines_own_flows_is_used_where_the_environment_lacks_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SPINE_DATABASE_URL", "SPINE_SECRET_KEY", "SPINE_CACHE_URL", "SPINE_SETTINGS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPINE_HOME", str(tmp_path))
    prepare_home(tmp_path)
    assert own_settings().database_url is None
    given = {"SPINE_DATABASE_URL": "postgresql://db/spine", "SPINE_SECRET_KEY": KEY, "SPINE_API_KEY": ADMIN_KEY}
    keep_for_own_flows(tmp_path, given)
    settings = own_settings()
    assert settings.database_url
    assert settings.database_url.get_secret_value() == given["SPINE_DATABASE_URL"]
    assert settings.secret_key
    assert settings.secret_key.get_secret_value() == KEY
    # The admin key is not for flows.
    assert ADMIN_KEY not in settings_path(tmp_path).read_text()
    monkeypatch.setenv("SPINE_DATABASE_URL", "postgresql://other/spine")
    assert "other" in str(own_settings().sqlalchemy_url)
    # A worker can have a file of its own, which must be there.
    monkeypatch.delenv("SPINE_DATABASE_URL")
    monkeypatch.setenv("SPINE_SETTINGS_FILE", str(tmp_path / "of-the-worker.json"))
    with pytest.raises(Unavailable, match="SPINE_SETTINGS_FILE"):
        own_settings()
    for content in ("[]", "no JSON", '"text"'):
        (tmp_path / "of-the-worker.json").write_text(content)
        with pytest.raises(Unavailable, match="cannot be read"):
            own_settings()
    (tmp_path / "of-the-worker.json").write_text('{"SPINE_DATABASE_URL": "postgresql://third/spine"}')
    assert own_settings().sqlalchemy_url.host == "third"
    # An `up` without such settings leaves nothing of an earlier one.
    keep_for_own_flows(tmp_path, {})
    assert not settings_path(tmp_path).exists()
