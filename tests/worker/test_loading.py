"""What a warm interpreter says of the code that it has imported: when it is old, and whether runs can share it."""

import os
import py_compile
import shutil
from pathlib import Path

import pytest
from spine_worker.forking.files import changed

from tests.worker.engine import Project, engine_server


def test_an_interpreter_is_old_when_another_folder_takes_the_place_of_the_one_that_it_works_in(tmp_path: Path) -> None:
    folder, away = tmp_path / "app", tmp_path / "app.old"
    folder.mkdir()
    with engine_server(folder, tmp_path / "home") as (engine, ready):
        (folder / "data.csv").touch()
        assert changed(ready.files) is None
        folder.rename(away)
        folder.mkdir()
        assert changed(ready.files) == f"{folder}/"
        shutil.rmtree(away)
        assert engine.load("flow.py:tells")[1].refusal == "raises FileNotFoundError"


@pytest.mark.parametrize("name", ["profiles.toml", "logging.yml"])
def test_an_interpreter_is_old_when_prefect_is_given_other_settings(project: Project, name: str) -> None:
    assert changed(project.ready.files) is None
    file = project.home / name
    file.touch()
    assert changed(project.ready.files) == str(file)
    file.unlink()


def test_what_is_imported_is_the_source_and_not_what_was_compiled_of_it_before(project: Project) -> None:
    flow = project.write("flow_compiled.py", "import compiled\nassert not compiled.OLD\n")
    module = project.write("compiled.py", "OLD = True")
    before = module.stat()
    for file in (flow, module):
        py_compile.compile(str(file))
    module.write_text("OLD = None")
    # Python takes what was compiled for up to date when the second and the size are the same.
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert project.load("flow_compiled.py").refusal is None
    shutil.rmtree(project.folder / "__pycache__")
    assert project.load("flow_compiled.py").refusal is None
    assert not (project.folder / "__pycache__").exists()


@pytest.mark.parametrize(
    ("code", "refusal"),
    [
        ("import pendulum\nTODAY = pendulum.today()", "reads the clock"),
        ("from uuid import uuid4\nNAME = uuid4()", "reads random bytes"),
        ("import os\nRUN = os.environ.get('PREFECT__FLOW_RUN_ID')", "reads PREFECT__FLOW_RUN_ID"),
        ("from prefect import runtime\nRUN = runtime.flow_run.id", "reads PREFECT__FLOW_RUN_ID"),
        ("import sqlite3\nsqlite3.connect(':memory:').close()", "opens a database"),
        ("import subprocess\nsubprocess.run(['true'])", "starts a process"),
        (
            "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 1)).close()\nexcept OSError:\n    pass",
            "asks the network",
        ),
    ],
)
def test_what_an_import_asks_of_its_surroundings_is_each_runs_own(project: Project, code: str, refusal: str) -> None:
    project.write("flow_asks.py", code)
    assert project.load("flow_asks.py").refusal == refusal


def test_what_libraries_do_when_they_are_imported_is_shared(project: Project) -> None:
    project.write("flow_imports.py", "import apprise, asyncssh, httpx, pendulum, pyarrow, sqlite3")
    assert project.load("flow_imports.py").refusal is None


@pytest.mark.parametrize(
    ("code", "file"),
    [
        ("try:\n    import optional\nexcept ImportError:\n    pass", "optional.py"),
        ("try:\n    import package\nexcept ImportError:\n    pass", "package/inside.py"),
        ("import shadowed", "shadowed/__init__.py"),
        ("try:\n    open('opened.toml')\nexcept FileNotFoundError:\n    pass", "opened.toml"),
        ("from pathlib import Path\nPath('asked.toml').exists()", "asked.toml"),
        ("from pathlib import Path\nlist(Path('plugins').glob('*.py'))", "plugins/new.py"),
        ("from pathlib import Path\nlist(Path('later').glob('*.py'))", "later/new.py"),
    ],
)
def test_code_is_old_when_a_file_appears_that_its_import_looked_for(project: Project, code: str, file: str) -> None:
    project.write("shadowed.py", "")
    project.write("plugins/first.py", "")
    project.write("flow_looks.py", code)
    loaded = project.load("flow_looks.py")
    assert loaded.refusal is None
    project.write("unrelated.csv", "")
    project.write("__pycache__/anything.pyc", "")
    assert changed(loaded.files) is None
    project.write(file, "")
    assert changed(loaded.files) in {str(project.folder / file), str((project.folder / file).parent)}


@pytest.mark.parametrize(("code", "refusal"), [("", None), ("seed(42)", "reads or seeds random numbers")])
def test_a_generator_that_an_import_seeds_is_each_runs_own(project: Project, code: str, refusal: str | None) -> None:
    # In the place of numpy, of which only this is used.
    project.write("numpy/__init__.py", "")
    project.write("numpy/random.py", "state = sorted([7])\nget_state = state.copy\nseed = state.append\n")
    project.write("flow_seeds.py", f"from numpy.random import seed\n{code}")
    assert project.load("flow_seeds.py").refusal == refusal


@pytest.mark.parametrize(
    ("decorators", "hooks"),
    [
        ("@flow", []),
        ("@flow(on_failure=[hook], on_completion=[hook])", []),
        ("@flow(on_cancellation=[hook])", ["cancellation"]),
        ("@tells.on_crashed\ndef late(flow, run, state): ...\n@flow", ["crashed"]),
        # Each run that imports its flow for itself may import another one.
        ("import os\nos.urandom(1)\n@flow", ["cancellation", "crashed"]),
    ],
)
def test_it_is_known_which_hooks_a_flow_has(project: Project, decorators: str, hooks: list[str]) -> None:
    made = "from prefect import flow\ndef hook(flow, run, state): ...\n@flow\ndef tells(): ...\n"
    project.write("hooked.py", f"{made}{decorators}\ndef another(): ...\n")
    name = "tells" if "late" in decorators else "another"
    server, loaded = project.engine.load(f"hooked.py:{name}")
    server.socket.close()
    assert loaded.hooks == hooks
