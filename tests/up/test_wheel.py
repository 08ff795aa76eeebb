"""The wheel as a newcomer gets it: in a new virtual environment, in a project with folders of the commonest names."""

import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import PROJECT, free_port, wait_until
from tests.support.project import committed_files
from tests.support.web import WEB
from tests.up.support import CLEAN, RunningUp, running_up

# Each would take the place of a package of Spine's if Spine had one of that name, or the reverse.
PACKAGES = {
    "api/main.py": "def create_app(): raise RuntimeError('this is the application of the team')",
    "api/settings.py": "OURS = True",
    "flows/helpers.py": "def shout(text: str) -> str:\n    return text.upper()",
    "flows/config.py": "OURS = True",
    "flows/sources.py": "SOURCE = 'prices'",
    "deployments/worker.py": "raise RuntimeError('this is not a worker')",
    "tests/support.py": "raise RuntimeError('this is no support of Spine')",
}
FLOW = """
from flows.config import OURS
from flows.helpers import shout
from flows.sources import SOURCE
from prefect import flow
from spine import SourceContent, read_source


@flow(name="team.report", persist_result=True, result_serializer="json")
def report(word: str) -> dict[str, object]:
    content: SourceContent = read_source(SOURCE)
    return {"rows_processed": content.to_arrow().num_rows, "word": shout(word), "ours": OURS}
"""
PREFECT_YAML = """
name: team
deployments:
  - name: team.report
    entrypoint: flows/report.py:report
    work_pool: {name: spine}
  - name: team.broken
    entrypoint: flows/missing.py:flow
    work_pool: {name: spine}
"""
TEAM_PYPROJECT = """
[build-system]
requires = ["hatchling>=1.27,<2"]
build-backend = "hatchling.build"
[project]
name = "team"
version = "1.0"
[tool.hatch.build.targets.wheel]
packages = ["api", "flows", "deployments", "tests"]
"""


def pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the committed files alone."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in committed_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / name, source / name)
    pip(Path(sys.executable), "wheel", "--no-deps", "--wheel-dir", str(out), str(source))
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new virtual environment with the wheel and its locked dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip(python, "install", "--no-deps", "--require-hashes", "-r", str(PROJECT / "deployments" / "requirements.lock"))
    pip(python, "install", "--no-deps", str(wheel))
    pip(python, "check")
    return python


def team_project(folder: Path, *, with_init: bool) -> Path:
    """A project that has packages of the commonest names, and a flow that reads a registered source."""
    for name, text in {**PACKAGES, "flows/report.py": FLOW, "prefect.yaml": PREFECT_YAML}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    for package in {Path(name).parts[0] for name in PACKAGES} if with_init else ():
        (folder / package / "__init__.py").touch()
    (folder / "data").mkdir()
    (folder / "data" / "prices.csv").write_text("day,price\n2026-01-05,1.5\n2026-01-06,2.5\n2026-01-07,3.5\n")
    return folder


def test_nothing_but_two_packages_is_installed(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"spine", "spine_worker"}
    assert {"spine/py.typed", "spine_worker/py.typed", "spine/migrations/script.py.mako"} <= set(names)
    assert wheel.name.startswith("prefect_spine-")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("worker", "with_init", "installed"),
    [
        ("spine", True, False),
        ("process", True, False),
        ("spine", False, False),
        ("process", True, True),
    ],
    ids=["spine", "process", "spine, without __init__.py", "process, installed"],
)
def test_a_team_runs_its_flow_on_a_source_beside_folders_of_the_commonest_names(
    python: Path, tmp_path: Path, worker: str, with_init: bool, installed: bool
) -> None:
    project = team_project(tmp_path / "team", with_init=with_init)
    if installed:
        (project / "pyproject.toml").write_text(TEAM_PYPROJECT)
        pip(python, "install", "--no-deps", str(project))
    try:
        with running_up(
            project / ".spine",
            tmp_path / "output.txt",
            free_port(),
            free_port(),
            cwd=project,
            python=python,
            options=("--worker", worker),
        ) as started:
            started.wait_ready()
            check_the_team_can_work(started, python, project)
    finally:
        if installed:
            pip(python, "uninstall", "--yes", "team")


def check_the_team_can_work(started: RunningUp, python: Path, project: Path) -> None:
    headers = {"X-API-Key": (project / ".spine" / "api-key").read_text().strip()}
    assert "Spine's own, 1 from prefect.yaml" in started.output
    assert "! Deployment team.broken: " in started.output
    ready = WEB.get(f"{started.api}/health/ready", timeout=20)
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "team.broken" in ready.json()["deployments"]["detail"]
    assert WEB.get(f"{started.api}/openapi.json").json()["info"]["title"] == "Spine"
    mend_and_deploy(started, python, project)
    assert WEB.get(f"{started.api}/health/ready", timeout=20).json()["deployments"]["state"] == "up"

    with httpx.Client(base_url=f"{started.api}/api/v1", headers=headers, timeout=30) as client:
        source = {"name": "prices", "source_type": "file", "config": {"path": "prices.csv"}, "parser_type": "csv"}
        assert client.post("/sources", json=source).status_code == 201
        fetch = client.post("/sources/prices/fetch").json()["fetch_id"]
        assert ended(client, f"/sources/fetches/{fetch}")["status"] == "SUCCESS"
        run = client.post("/workflows/trigger/team.report", json={"params": {"word": "loud"}}).json()["run_id"]
        detail = ended(client, f"/workflows/runs/{run}")
        assert (detail["status"], detail["rows_processed"]) == ("COMPLETED", 3), detail["error"]


def mend_and_deploy(started: RunningUp, python: Path, project: Path) -> None:
    """Deploy from another shell, as CI does, what the start could not."""
    mended = "from prefect import flow as prefect_flow\n\n@prefect_flow(name='team.broken')\ndef flow() -> None: ...\n"
    (project / "flows" / "missing.py").write_text(mended)
    environment = {**CLEAN, **started.shell, "PREFECT_HOME": str(project / ".prefect")}
    for command in (["prefect", "deploy", "--all", "--no-prompt"], ["spine", "deploy"]):
        subprocess.run(
            [str(python.parent / command[0]), *command[1:]],
            cwd=project,
            env=environment,
            check=True,
            capture_output=True,
        )


def ended(client: httpx.Client, path: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def has_ended() -> bool:
        found[:] = [client.get(path).json()]
        return found[0]["status"] not in ("PENDING", "RUNNING")

    wait_until(has_ended, f"the end of {path}", 120, every=0.5)
    return found[0]


@pytest.mark.slow
def test_the_installed_names_are_importable_from_an_empty_folder(python: Path, tmp_path: Path) -> None:
    code = """
    import spine, spine_worker, sys
    assert sorted(spine.__all__) == ["SourceContent", "aread_source", "read_source"]
    assert all(callable(getattr(spine, name)) for name in spine.__all__)
    from prefect.workers.utilities import get_available_work_pool_types
    import asyncio
    assert "spine" in asyncio.run(get_available_work_pool_types())
    """
    command = [str(python), "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=tmp_path, env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
