"""What a warm interpreter reports of the code that it has imported: when it is outdated, and if runs can share it."""

import os
import py_compile
import shutil
from pathlib import Path

import pytest
from spine_worker.forking.files import first_changed

from tests.worker.engine import Project, engine_server


def test_an_interpreter_is_outdated_when_its_directory_is_replaced(tmp_path: Path) -> None:
    folder, away = tmp_path / "app", tmp_path / "app.old"
    folder.mkdir()
    with engine_server(folder, tmp_path / "home") as (engine, ready):
        (folder / "data.csv").touch()
        assert first_changed(ready.files) is None
        folder.rename(away)
        folder.mkdir()
        assert first_changed(ready.files) == f"{folder}/"
        shutil.rmtree(away)
        assert engine.load("flow.py:reports")[1].side_effect == "raises FileNotFoundError"


@pytest.mark.parametrize("name", ["profiles.toml", "logging.yml"])
def test_an_interpreter_is_outdated_when_the_settings_of_prefect_change(project: Project, name: str) -> None:
    assert first_changed(project.ready.files) is None
    file = project.home / name
    file.touch()
    assert first_changed(project.ready.files) == str(file)
    file.unlink()


def test_the_source_of_a_module_is_imported_and_not_its_bytecode(project: Project) -> None:
    flow = project.write("flow_compiled.py", "import compiled\nassert not compiled.OLD\n")
    module = project.write("compiled.py", "OLD = True")
    before = module.stat()
    for file in (flow, module):
        py_compile.compile(str(file))
    module.write_text("OLD = None")
    # Python takes bytecode as up to date if the second of the change and the size are the same.
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert project.load("flow_compiled.py").side_effect is None
    shutil.rmtree(project.folder / "__pycache__")
    assert project.load("flow_compiled.py").side_effect is None
    assert not (project.folder / "__pycache__").exists()


@pytest.mark.parametrize(
    ("code", "side_effect"),
    [
        ("import pendulum\nTODAY = pendulum.today()", "reads the clock"),
        ("from uuid import uuid4\nNAME = uuid4()", "reads random bytes"),
        ("import os\nRUN = os.environ.get('PREFECT__FLOW_RUN_ID')", "reads PREFECT__FLOW_RUN_ID"),
        ("from prefect import runtime\nRUN = runtime.flow_run.id", "reads PREFECT__FLOW_RUN_ID"),
        ("import sqlite3\nsqlite3.connect(':memory:').close()", "opens a database"),
        ("import subprocess\nsubprocess.run(['true'])", "starts a process"),
        (
            "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 1)).close()\nexcept OSError:\n    pass",
            "uses the network",
        ),
    ],
)
def test_an_import_with_a_side_effect_is_not_shared(project: Project, code: str, side_effect: str) -> None:
    project.write("flow_with_side_effect.py", code)
    assert project.load("flow_with_side_effect.py").side_effect == side_effect


def test_the_side_effects_of_importing_libraries_are_shared(project: Project) -> None:
    project.write("flow_imports.py", "import apprise, asyncssh, httpx, pendulum, pyarrow, sqlite3")
    assert project.load("flow_imports.py").side_effect is None


@pytest.mark.parametrize(
    ("code", "file"),
    [
        ("try:\n    import optional\nexcept ImportError:\n    pass", "optional.py"),
        ("try:\n    import package\nexcept ImportError:\n    pass", "package/inside.py"),
        ("import shadowed", "shadowed/__init__.py"),
        ("try:\n    open('opened.toml')\nexcept FileNotFoundError:\n    pass", "opened.toml"),
        ("from pathlib import Path\nPath('checked.toml').exists()", "checked.toml"),
        ("from pathlib import Path\nlist(Path('plugins').glob('*.py'))", "plugins/new.py"),
        ("from pathlib import Path\nlist(Path('later').glob('*.py'))", "later/new.py"),
    ],
)
def test_code_is_outdated_when_a_file_appears_that_its_import_has_looked_for(
    project: Project, code: str, file: str
) -> None:
    project.write("shadowed.py", "")
    project.write("plugins/first.py", "")
    project.write("flow_looks.py", code)
    loaded = project.load("flow_looks.py")
    assert loaded.side_effect is None
    project.write("unrelated.csv", "")
    project.write("__pycache__/anything.pyc", "")
    assert first_changed(loaded.files) is None
    project.write(file, "")
    assert first_changed(loaded.files) in {str(project.folder / file), str((project.folder / file).parent)}


@pytest.mark.parametrize(("code", "side_effect"), [("", None), ("seed(42)", "reads or seeds random numbers")])
def test_an_import_that_seeds_the_generator_of_numpy_is_not_shared(
    project: Project, code: str, side_effect: str | None
) -> None:
    # A package in place of numpy, with the functions that are used here.
    project.write("numpy/__init__.py", "")
    project.write("numpy/random.py", "state = sorted([7])\nget_state = state.copy\nseed = state.append\n")
    project.write("flow_seeds.py", f"from numpy.random import seed\n{code}")
    assert project.load("flow_seeds.py").side_effect == side_effect


@pytest.mark.parametrize(
    ("decorators", "hooks"),
    [
        ("@flow", []),
        ("@flow(on_failure=[hook], on_completion=[hook])", []),
        ("@flow(on_cancellation=[hook])", ["cancellation"]),
        ("@reports.on_crashed\ndef late(flow, run, state): ...\n@flow", ["crashed"]),
        # Runs that import the flow for themselves may get another one each time.
        ("import os\nos.urandom(1)\n@flow", ["cancellation", "crashed"]),
    ],
)
def test_the_kinds_of_hooks_of_a_flow_are_reported(project: Project, decorators: str, hooks: list[str]) -> None:
    made = "from prefect import flow\ndef hook(flow, run, state): ...\n@flow\ndef reports(): ...\n"
    project.write("hooked.py", f"{made}{decorators}\ndef another(): ...\n")
    name = "reports" if "late" in decorators else "another"
    server, loaded = project.engine.load(f"hooked.py:{name}")
    server.socket.close()
    assert loaded.hooks == hooks


@pytest.mark.parametrize(
    ("code", "side_effect"),
    [
        ("print('imported')", "prints"),
        ("import sys\nsys.stderr.write('imported')", "prints"),
        ("import warnings\nwarnings.warn('imported')", "prints"),
        ("import logging\nlogging.warning('imported')", "reads the clock"),
        ("open('imported.log', 'a').close()", "changes files"),
        ("from pathlib import Path\nPath('imported.log').write_text('')", "changes files"),
        ("import os\nos.symlink('a', 'imported.link')\nos.remove('imported.link')", "changes files"),
        ("import signal\nsignal.alarm(600)", "sets a timer"),
        ("import signal\nsignal.setitimer(signal.ITIMER_VIRTUAL, 600)", "sets a timer"),
        ("import sys\nsys.setprofile(lambda *_: None)", "sets a profiler or tracer"),
        ("import cProfile\ncProfile.Profile().enable()", "sets a profiler or tracer"),
        ("import sys\nsys.settrace(lambda *_: None)", "sets a profiler or tracer"),
        ("import os\nVARIABLES = dict(os.environ)", "lists all variables"),
        ("import os\nVARIABLES = {**os.environ, 'MORE': '1'}", "lists all variables"),
        ("import os\nRUN = os.getenvb(b'PREFECT__FLOW_RUN_ID')", "reads PREFECT__FLOW_RUN_ID"),
    ],
)
def test_an_import_that_leaves_something_for_the_world_or_the_process_is_not_shared(
    project: Project, code: str, side_effect: str
) -> None:
    project.write("flow_leaves.py", code)
    assert project.load("flow_leaves.py").side_effect == side_effect


@pytest.mark.parametrize(
    "code",
    [
        "import urllib.request\nurllib.request.getproxies()",
        "import os\nopen(os.devnull, 'w').close()",
        "import io\nio.StringIO().write('kept')",
    ],
)
def test_an_import_that_only_looks_is_shared(project: Project, code: str) -> None:
    project.write("flow_looks_only.py", code)
    assert project.load("flow_looks_only.py").side_effect is None


def test_a_directory_that_an_import_makes_is_made_again_when_a_run_has_deleted_it(project: Project) -> None:
    project.write("flow_makes.py", "from pathlib import Path\nPath('made/deep').mkdir(parents=True, exist_ok=True)")
    loaded = project.load("flow_makes.py")
    assert loaded.side_effect is None
    made = project.folder / "made"
    (made / "deep" / "file").touch()
    assert first_changed(loaded.files) is None
    shutil.rmtree(made)
    assert first_changed(loaded.files) in {f"{made}/", f"{made}/deep/"}
    assert first_changed(project.load("flow_makes.py").files) is None


@pytest.mark.parametrize(
    ("code", "in_advance"),
    [
        ("", True),
        # It sets variables for itself.
        ("import polars", True),
        ("os.environ['SET'] = 'first'", False),
        ("os.environ.setdefault('SET', 'first')", False),
    ],
)
def test_no_package_is_imported_before_the_variables_that_a_flow_sets_for_it(
    project: Project, code: str, in_advance: bool
) -> None:
    project.write("flow_sets.py", f"import os\n{code}\nimport tabnanny\nos.urandom(1)")
    assert ("tabnanny" in project.load("flow_sets.py").modules) is in_advance


def test_an_engine_server_is_outdated_when_a_module_of_the_project_changes_that_it_has_imported(
    tmp_path: Path,
) -> None:
    # The project's module takes the place of the package of that name.
    (tmp_path / "graphviz.py").write_text("def Digraph(): ...\n")
    with engine_server(tmp_path, tmp_path / "home") as (_, ready):
        assert first_changed(ready.files) is None
        (tmp_path / "graphviz.py").write_text("")
        assert first_changed(ready.files) == str(tmp_path / "graphviz.py")
