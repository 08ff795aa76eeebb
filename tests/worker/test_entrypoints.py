"""Where both workers find the code of a deployment: a script or a module, in a directory that is fixed or relative.

The team's project has packages of the names that are commonest in such projects, with and without `__init__.py`.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import uuid4

import pytest

from tests.support.processes import PROJECT
from tests.support.stack import PrefectStack
from tests.worker.pool import Pool, Run, served_pool

pytestmark = pytest.mark.slow

PACKAGES = ["api", "deployments", "flows", "tests"]
REPORT = """
import json
import os
import sys
from pathlib import Path

from prefect import flow


@flow
def report(path: str) -> None:
    owned = sorted(module.__file__ for name, module in list(sys.modules.items()) if name.endswith(".owned"))
    facts = {"cwd": os.getcwd(), "first": sys.path[0], "forked": "spine_worker" in sys.modules, "owned": owned}
    Path(path).write_text(json.dumps(facts) + "\\n")
"""


def write_project(folder: Path, *, init: bool) -> None:
    """A team's project with packages named as Spine's folders are, which also uses Spine."""
    for name in PACKAGES:
        (folder / name).mkdir(parents=True)
        (folder / name / "owned.py").touch()
        if init:
            (folder / name / "__init__.py").touch()
    imports = "".join(f"import {name}.owned\n" for name in PACKAGES)
    (folder / "flows" / "report.py").write_text(f"{imports}from spine import read_source\n{dedent(REPORT)}")


def set_directory(directory: str) -> list[dict[str, Any]]:
    """The pull step that names a directory."""
    return [{"prefect.deployments.steps.set_working_directory": {"directory": directory}}]


@pytest.fixture(scope="module", params=["spine", "process"])
def pool(
    request: pytest.FixtureRequest, stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pool]:
    """A pool with a worker of either type, whose `working_dir` holds two projects and a module."""
    with served_pool(request.param, stack, tmp_path_factory.mktemp("entrypoints") / request.param) as served:
        for name in ("with_init", "without_init"):
            write_project(served.folder / name, init=name == "with_init")
        (served.folder / "modules").mkdir()
        (served.folder / "modules" / "installed.py").write_text(dedent(REPORT))
        yield served


def start(
    pool: Pool, entrypoint: str, pull: list[dict[str, Any]] | None, *, path: str | None = None, **variables: Any
) -> Run:
    """Start a run of a deployment that is made for it."""
    made = pool.stack.post(
        "/deployments/",
        {
            "name": uuid4().hex,
            "flow_id": pool.stack.flow_id("report"),
            "entrypoint": entrypoint,
            "pull_steps": pull,
            "path": path,
            "work_pool_name": pool.name,
            "job_variables": variables,
        },
    )
    file = f"{uuid4().hex}.jsonl"
    body = {"parameters": {"path": str(pool.folder / file)}}
    return pool.of(pool.stack.post(f"/deployments/{made['id']}/create_flow_run", body)["id"], file)


@pytest.fixture(scope="module")
def runs(pool: Pool) -> dict[str, Run]:
    """A run of each form of entrypoint, all begun at once."""
    first, second = (str(pool.folder / name) for name in ("with_init", "without_init"))
    importable: dict[str, Any] = {"env": {"PYTHONPATH": str(pool.folder / "modules")}, "working_dir": None}
    return {
        "script": start(pool, "flows/report.py:report", set_directory(first)),
        "script without __init__": start(pool, "flows/report.py:report", set_directory(second)),
        "module and object": start(pool, "flows.report:report", set_directory("."), working_dir=first),
        "module and object without __init__": start(pool, "flows.report:report", set_directory("without_init")),
        "dotted": start(pool, "flows.report.report", None, working_dir=first),
        "dotted without __init__": start(pool, "flows.report.report", None, path=".", working_dir=second),
        "relative to nothing": start(pool, "installed:report", set_directory("."), **importable),
        "nowhere": start(pool, "installed.report", None, **importable),
    }


@pytest.mark.parametrize("form", ["script", "module and object", "dotted"])
@pytest.mark.parametrize("project", ["with_init", "without_init"])
def test_a_run_imports_the_packages_of_its_own_project(
    pool: Pool, runs: dict[str, Run], form: str, project: str
) -> None:
    run = runs[form if project == "with_init" else f"{form} without __init__"]
    assert run.ended() == "COMPLETED", run.state["message"]
    folder = pool.folder / project
    assert run.fact["owned"] == [str(folder / name / "owned.py") for name in PACKAGES]
    assert run.fact["cwd"] == str(folder)
    # Prefect puts the script's own folder in front.
    assert run.fact["first"] == str(folder / "flows" if form == "script" else folder)
    assert run.fact["forked"] == (pool.kind == "spine")


def test_a_relative_directory_without_a_working_dir_is_the_workers_own_or_a_temporary_one(
    pool: Pool, runs: dict[str, Run]
) -> None:
    run = runs["relative to nothing"]
    assert run.ended() == "COMPLETED", run.state["message"]
    assert run.fact["forked"] == (pool.kind == "spine")
    if pool.kind == "spine":
        assert run.fact["cwd"] == str(PROJECT)
    else:
        assert is_temporary(run.fact["cwd"])


def test_a_module_without_pull_steps_and_working_dir_runs_in_a_temporary_folder(
    pool: Pool, runs: dict[str, Run]
) -> None:
    run = runs["nowhere"]
    assert run.ended() == "COMPLETED", run.state["message"]
    assert not run.fact["forked"]
    assert is_temporary(run.fact["cwd"])


def test_warm_interpreters_share_the_import_of_modules(pool: Pool, runs: dict[str, Run]) -> None:
    assert [run.ended() for run in runs.values()] == ["COMPLETED"] * len(runs)
    assert "imports its code" not in pool.log.read_text()


def is_temporary(folder: str) -> bool:
    """Whether this is a folder that Prefect has made for one run."""
    return Path(folder).parent == Path(tempfile.gettempdir()).resolve() and folder.endswith("prefect")
