"""Prefect 3.8, which is supported beside 3.9: the worker, the server and schedules, in an environment of its own."""

import subprocess
from pathlib import Path

import pytest

from tests.support.environments import install, install_locked, install_project, new_environment, pytest_with, uv
from tests.support.processes import free_port
from tests.up.support import assert_one_sentence, spine_up

pytestmark = pytest.mark.slow

BEHAVIOUR = {
    "not slow": (
        *("tests/worker", "tests/prefect_server", "tests/schedules/test_end_to_end.py", "tests/schedules/test_runs.py"),
        *("tests/run_history/test_ingest.py", "tests/alerts/test_transport.py", "tests/api/test_cancel.py"),
    ),
    "slow": ("tests/worker/test_launches.py",),
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with Prefect 3.8 and what the tests need."""
    python = new_environment(tmp_path_factory.mktemp("prefect-3-8") / "environment")
    install_locked(python, "requirements-prefect-3-8.lock")
    install_project(python)
    uv("pip", "check", "--python", str(python))
    return python


@pytest.mark.parametrize("half", BEHAVIOUR)
def test_spine_works_with_prefect_3_8(half: str, python: Path, tmp_path: Path) -> None:
    version = subprocess.run([str(python), "-m", "prefect", "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("3.8.")
    done = pytest_with(python, "-m", half, "-n", "2", "--basetemp", str(tmp_path / "tests"), *BEHAVIOUR[half])
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]


def test_its_server_does_not_start_with_a_sqlalchemy_with_which_it_plans_no_runs(python: Path, tmp_path: Path) -> None:
    install(python, "--no-deps", "--upgrade", "sqlalchemy>=2.1,<2.2")
    ports = ("--port", str(free_port()), "--prefect-port", str(free_port()))
    done = spine_up("--home", str(tmp_path / "home"), *ports, python=python)
    assert_one_sentence(done, "plans no runs of schedules with SQLAlchemy 2.1", "prefect-spine[prefect-3-8]")
