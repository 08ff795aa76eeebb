"""`spine up` beside a Prefect server that is already there, and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from spine.up.home import read_records
from spine.up.processes import WORKER, of_home, variable

from tests.support.postgres import fresh_database
from tests.support.processes import free_port
from tests.support.stack import PrefectStack
from tests.support.web import WEB
from tests.up.support import assert_one_sentence, running_up, spine_up

PREFECT_YAML = """
name: project
deployments:
  - name: nothing
    entrypoint: {entrypoint}
    work_pool:
      name: beside
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "flow.py").write_text("from prefect import flow\n\n@flow\ndef nothing() -> None: ...\n")
    (folder / "prefect.yaml").write_text(PREFECT_YAML.format(entrypoint="flow.py:nothing"))
    return folder


@pytest.fixture
def database(postgresql_url: str) -> Iterator[str]:
    """A database of its own: the key that it makes known is not that of the other tests."""
    with fresh_database(postgresql_url) as url:
        yield url


@pytest.mark.slow
def test_it_uses_the_named_prefect_and_stops_in_order_when_the_worker_dies(
    stack: PrefectStack, database: str, project: Path, tmp_path: Path
) -> None:
    home, key = tmp_path / "home", "a-key-from-the-environment"
    given = {
        "PREFECT_API_URL": stack.url,
        "SPINE_DATABASE_URL": database,
        "SPINE_API_KEY": key,
        "SPINE_WORK_POOL": "beside",
    }
    with running_up(home, tmp_path / "output.txt", free_port(), free_port(), cwd=project, environment=given) as started:
        started.wait_ready()
        assert set(read_records(home)) == {"api", "database", "deploy", "nursery", "worker"}
        answer = WEB.get(f"{started.api}/api/v1/workflows/runs", headers={"X-API-Key": key}, timeout=20)
        assert answer.status_code == 200
        assert key not in started.output
        assert not (home / "api-key").exists()
        # A forked API does not show its environment, and has the key, as the answer shows.
        knowing = [process for process in of_home(home) if variable(process, "SPINE_API_KEY")]
        assert [process.cmdline() for process in knowing if "serve" not in process.cmdline()] == []

        psutil.Process(read_records(home)[WORKER][0]).kill()
        assert started.process.wait(timeout=15) == 1
        assert "Error: The worker was killed by signal 9" in started.output
        assert "worker.log" in started.output
        assert of_home(home) == []
        assert WEB.get(f"{stack.url}/health").status_code == 200


@pytest.mark.slow
def test_a_deployment_that_fails_is_named_and_everything_else_starts(
    stack: PrefectStack, database: str, project: Path, tmp_path: Path
) -> None:
    (project / "prefect.yaml").write_text(PREFECT_YAML.format(entrypoint="missing.py:nothing"))
    given = {"PREFECT_API_URL": stack.url, "SPINE_DATABASE_URL": database, "SPINE_WORK_POOL": "beside"}
    home, output = tmp_path / "home", tmp_path / "output.txt"
    with running_up(home, output, free_port(), free_port(), cwd=project, environment=given) as started:
        started.wait_ready()
        assert "Spine's own, 0 from prefect.yaml" in started.output
        assert "! Deployment nothing: FileNotFoundError" in started.output
        ready = WEB.get(f"{started.api}/health/ready", timeout=20)
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        part = ready.json()["deployments"]
        detail = "0 of 1 deployments of prefect.yaml were made; failed: nothing"
        assert (part["state"], part["detail"], bool(part["since"])) == ("degraded", detail, True)
        # The Prefect that was named needs no credential, which is said plainly.
        assert ready.json()["prefect_open"]["state"] == "degraded"
        assert "whoever reaches it can run code" in ready.json()["prefect_open"]["detail"]
        doctor = started.doctor(**given)
        assert (doctor.returncode, "! prefect_open   Prefect's API is open" in doctor.stdout) == (0, True), doctor


@pytest.mark.slow
def test_an_existing_work_pool_of_another_type_is_not_taken_over(
    stack: PrefectStack, project: Path, tmp_path: Path
) -> None:
    stack.post("/work_pools/", {"name": "containers", "type": "docker"})
    given = {"PREFECT_API_URL": stack.url, "SPINE_WORK_POOL": "containers"}
    done = spine_up("--home", str(tmp_path / "home"), "--port", str(free_port()), cwd=project, **given)
    assert_one_sentence(done, "The work pool 'containers' is of type 'docker'", "SPINE_WORK_POOL")
