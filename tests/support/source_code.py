"""The project's Python files as the house test reads them: imports, functions, and the text that people read."""

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache

from tests.support.processes import PROJECT
from tests.support.project import committed_files


def python_files(*folders: str) -> list[str]:
    found = [name for name in committed_files() if name.endswith(".py") and name.partition("/")[0] in folders]
    assert found
    return found


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse((PROJECT / name).read_text())


def imports_of(name: str) -> set[str]:
    """The dotted names that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def importers_of(packages: set[str], *folders: str) -> set[str]:
    return {
        name
        for name in python_files(*folders)
        if any(imported.partition(".")[0] in packages for imported in imports_of(name))
    }


def outside(names: set[str], patterns: tuple[str, ...]) -> set[str]:
    return {name for name in names if not any(fnmatch(name, pattern) for pattern in patterns)}


def functions_of(name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def strings_of(name: str) -> Iterator[tuple[int, str]]:
    """Each string constant of a file, docstrings and parts of f-strings among them, with its first line."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
