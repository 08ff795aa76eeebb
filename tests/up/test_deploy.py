"""What is deployed: the project's `prefect.yaml`, around what fails in it, and Spine's own flows."""

import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from spine.deployment_report import DeploymentReport
from spine.up.deploy import ProjectDeploy
from spine.up.home import prepare_home
from spine.up.processes import DEPLOY, Child, Children

from tests.support.stack import PrefectStack
from tests.support.variants import one_by_default
from tests.up.support import CLEAN

FLOWS = "from prefect import flow\n\n@flow(name={name!r})\ndef good() -> None: ...\n"


class Project:
    """A folder with a flow, whose `prefect.yaml` is deployed to the tests' Prefect server."""

    def __init__(self, stack: PrefectStack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder / "project"
        self.home = folder / "home"
        self.flow = f"project-{uuid4().hex[:8]}"
        self.folder.mkdir()
        prepare_home(self.home)
        (self.folder / "good.py").write_text(FLOWS.format(name=self.flow))
        (self.folder / "broken.py").write_text("raise RuntimeError('the import fails')\n")
        (self.folder / "syntax.py").write_text("def good(: ...\n")

    def entry(self, name: str, entrypoint: str = "good.py:good", **more: Any) -> dict[str, Any]:
        return {"name": name, "entrypoint": entrypoint, "work_pool": {"name": "spine"}, **more}

    def write(self, *entries: Any) -> None:
        (self.folder / "prefect.yaml").write_text(yaml.safe_dump({"name": "p", "deployments": list(entries)}))

    def deploy(self) -> DeploymentReport:
        return ProjectDeploy(self.folder, self.home / "run", self._run).deploy()

    def _run(self, arguments: list[str]) -> Child:
        environment = {**self.stack.environment, "COLUMNS": "200"}
        command = ["prefect", "deploy", "--no-prompt", *arguments]
        child = Children(self.home, self.folder).launch(DEPLOY, command, environment)
        child.process.wait()
        return child

    def deployed(self) -> set[str]:
        found = self.stack.post("/deployments/filter", {"flows": {"name": {"any_": [self.flow]}}, "limit": 200})
        return {deployment["name"] for deployment in found}


@pytest.fixture
def project(stack: PrefectStack, tmp_path: Path) -> Project:
    return Project(stack, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 60])
def test_the_number_of_deployments_is_right(project: Project, count: int) -> None:
    names = [f"number-{number}" for number in range(count)]
    project.write(*(project.entry(name) for name in names))
    report = project.deploy()
    assert (report.deployed, report.failed) == (count, {})
    assert project.deployed() == set(names)


@pytest.mark.slow
def test_what_fails_is_named_and_everything_else_is_deployed(project: Project) -> None:
    project.write(
        project.entry("first"),
        project.entry("raises", "broken.py:good"),
        project.entry("second"),
        project.entry("gone", "missing.py:good"),
        project.entry("no-python", "syntax.py:good"),
        {"entrypoint": "good.py:good"},
        project.entry("last"),
    )
    report = project.deploy()
    assert project.deployed() == {"first", "second", "last"}
    assert report.deployed == 3
    assert set(report.failed) == {"raises", "gone", "no-python", "entry 6 of prefect.yaml"}
    assert report.failed["raises"] == "Could not find object 'good' in 'broken.py'"
    assert "missing.py" in report.failed["gone"]
    assert report.summary() == (
        "3 of 7 deployments of prefect.yaml were made; failed: entry 6 of prefect.yaml, raises, gone, no-python"
    )


@pytest.mark.slow
def test_an_entry_for_which_prefect_refuses_the_whole_file_fails_alone(project: Project) -> None:
    project.write(*(project.entry(name) for name in "abc"), project.entry("wrong", schedules="daily"))
    report = project.deploy()
    assert project.deployed() == {"a", "b", "c"}
    assert (report.deployed, set(report.failed)) == (3, {"wrong"})


@pytest.mark.parametrize(
    ("text", "failed"),
    one_by_default(
        [
            ("deployments: [unclosed\n", {"prefect.yaml"}),
            ("name: p\ndeployments: []\n", set()),
            ("name: p\n", set()),
            ("deployments: {a: b}\n", {"prefect.yaml"}),
            ("", {"prefect.yaml"}),
        ]
    ),
    ids=["no YAML", "an empty list", "no list", "a mapping", "an empty file"],
)
def test_a_file_without_deployments_deploys_nothing(project: Project, text: str, failed: set[str]) -> None:
    (project.folder / "prefect.yaml").write_text(text)
    report = project.deploy()
    assert (report.deployed, set(report.failed)) == (0, failed)


@pytest.mark.slow
def test_spine_deploy_can_be_repeated_and_leaves_alone_what_people_set(stack: PrefectStack) -> None:
    stack.deploy_own_flows()
    assert stack.deploy_own_flows() == {"spine.fetch_source": "unchanged", "spine.prune": "unchanged"}
    prune = stack.deployment("spine.prune", "spine.prune")
    assert prune["entrypoint"] == "spine.flows.prune:prune"
    assert [schedule["slug"] for schedule in prune["schedules"]] == ["nightly"]
    set_by_people = {
        "parameters": {"dry_run": False, "retention_days": 7},
        "tags": ["domain:ours", "severity:critical"],
        "job_variables": {"env": {"A": "b"}},
        "concurrency_limit": 1,
        "paused": True,
    }
    stack.patch(f"/deployments/{prune['id']}", set_by_people)
    before = stack.deployment("spine.prune", "spine.prune")
    try:
        # As a release of Spine that had its flows elsewhere left it.
        stack.patch(f"/deployments/{prune['id']}", {"entrypoint": "flows/prune.py:prune", "version": "0.0.1"})
        assert stack.deploy_own_flows()["spine.prune"] == "updated"
        after = stack.deployment("spine.prune", "spine.prune")
        changing = {"updated", "status", "last_polled"}
        assert {name: value for name, value in after.items() if name not in changing} == {
            name: value for name, value in before.items() if name not in changing
        }
    finally:
        restored = {name: prune[name] for name in ("parameters", "tags", "job_variables", "paused")}
        stack.patch(f"/deployments/{prune['id']}", {**restored, "concurrency_limit": None})


@pytest.mark.slow
def test_spine_deploy_without_a_prefect_is_one_sentence(tmp_path: Path) -> None:
    environment = {**CLEAN, "PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": "http://127.0.0.1:1/api"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "spine.cli", "deploy"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Prefect at http://127.0.0.1:1/api could not be used" in done.stderr
