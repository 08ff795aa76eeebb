"""`prefect deploy --all` on a clean copy of the project, as CI runs it."""

import shutil
from pathlib import Path

import pytest
import yaml

from tests.support.processes import PROJECT
from tests.support.project import committed_files
from tests.support.stack import Api, PrefectStack


@pytest.mark.slow
def test_a_clean_copy_of_the_project_registers_every_deployment(api: Api, stack: PrefectStack, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    for name in committed_files():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / name, clone / name)
    try:
        stack.cli("deploy", "--all", "--no-prompt", cwd=clone)
        for entry in yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]:
            found = stack.deployment(entry["name"], entry["name"])
            assert found["entrypoint"] == entry["entrypoint"]
            assert set(entry.get("tags", [])) <= set(found["tags"])
            assert found["work_pool_name"] == "spine"
            assert api.get(f"/workflows/definitions/{entry['name']}")["description"]
    finally:
        # The other tests run the project's own code.
        stack.cli("deploy", "--all", "--no-prompt")
