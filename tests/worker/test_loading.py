"""What a warm interpreter says of the code that it has imported: when it is old, and whether runs can share it."""

import os
import py_compile
import shutil
from pathlib import Path

from deployments.forking.files import changed
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
