"""The suite itself: what runs by default, what runs with `-m slow`, and how it is ordered."""

import ast
import json
import re
import shlex
import tomllib
from fnmatch import fnmatch

from tests.support.order import GROUPS, MEASURED
from tests.support.processes import PROJECT
from tests.support.project import committed_files
from tests.support.source_code import python_files, tree_of

REQUESTING = {"Client", "AsyncClient", "get", "head", "post", "put", "patch", "delete", "request", "stream"}


def test_every_test_is_in_one_half_of_the_suite() -> None:
    options = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    given = shlex.split(options["addopts"])
    assert given[given.index("-m") + 1] == "not slow"
    assert not [one for one in given if one.startswith(("-k", "--ignore", "--deselect"))]
    assert options["testpaths"] == ["tests"]
    assert {"norecursedirs", "python_files", "python_classes", "python_functions"}.isdisjoint(options)
    texts = {name: (PROJECT / name).read_text() for name in python_files("tests")}
    assert not [name for name, text in texts.items() if re.search(r"(?m)^collect_ignore", text)]


def test_ci_runs_the_command_of_the_readme_and_then_the_slow_half() -> None:
    run = (PROJECT / ".ci" / "run").read_text()
    (command,) = re.findall(r"(?m)^python3 -m venv .*pytest$", (PROJECT / "README.md").read_text())
    slow = f"{command.rpartition(' && ')[2]} -m slow"
    assert 0 < run.index(f"{command};") < run.index(slow)


def test_what_orders_the_files_names_files_that_are_there() -> None:
    files = set(committed_files())
    measured = json.loads(MEASURED.read_text())
    assert set(measured) == {"default", "slow"}
    assert {file for half in measured.values() for file in half} <= files
    patterns = [pattern for group in GROUPS.values() for pattern in group]
    assert [pattern for pattern in patterns if not any(fnmatch(file, pattern) for file in files)] == []


def test_no_request_of_a_test_gives_up_after_the_few_seconds_of_httpx() -> None:
    impatient = []
    for name in python_files("tests"):
        for call in (node for node in ast.walk(tree_of(name)) if isinstance(node, ast.Call)):
            match call.func:
                case ast.Attribute(ast.Name("httpx"), function) if function in REQUESTING:
                    if not {"timeout", "transport"} & {one.arg for one in call.keywords}:
                        impatient.append(f"{name}:{call.lineno}")
    assert impatient == []
