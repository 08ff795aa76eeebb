"""The rules of the house, so that nobody has to remember them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from spine.settings import Settings

from tests.support.processes import PROJECT
from tests.support.project import committed_files

MOST_LINES_OF_A_FILE = 300
MOST_LINES_OF_A_FUNCTION = 50

# The files that know HTTP. Flows use the services, so these must work without FastAPI.
KNOW_HTTP = (
    *("api/spine/main.py", "api/spine/health.py", "api/spine/metrics.py"),
    *("api/spine/*routes.py", "api/spine/http/*.py"),
)
# The door to Prefect, the start of its server, the command that starts it all, and the flows of the product.
KNOW_PREFECT = (
    *("api/spine/prefect/*.py", "api/spine/prefect_server/*.py"),
    *("api/spine/up/*.py", "api/spine/flows/*.py"),
)
# Who may speak HTTP to the outside: besides the door, the readers of a token issuer's keys, of Vault and of HTTP
# sources, and alert channels.
SPEAK_HTTP = (
    *KNOW_PREFECT,
    *("api/spine/auth/jwt.py", "api/spine/secrets/refs.py", "api/spine/sources/readers/http*.py"),
    # The words in which the library of S3 says that a connection was lost.
    "api/spine/sources/readers/s3_failures.py",
    *("api/spine/egress/*.py", "api/spine/alerts/channels/*.py"),
)


def python_files(*folders: str) -> list[str]:
    found = [name for name in committed_files() if name.endswith(".py") and name.partition("/")[0] in folders]
    assert found
    return found


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


def product_flows() -> list[str]:
    return [name for name in python_files("api") if name.startswith("api/spine/flows/")]


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


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=" ".join,
)
def test_the_checkers_have_nothing_to_say(command: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_routes_and_what_serves_them_import_fastapi() -> None:
    importers = importers_of({"fastapi", "starlette"}, "api", "flows", "deployments")
    assert "api/spine/main.py" in importers
    assert outside(importers, KNOW_HTTP) == set()


def test_flows_use_nothing_that_imports_fastapi() -> None:
    web = {name.removesuffix(".py").replace("/", ".") for name in importers_of({"fastapi", "starlette"}, "api")}
    for name in [*python_files("flows"), *product_flows()]:
        used = {imported for imported in imports_of(name) if any(f"{imported}.".startswith(f"{one}.") for one in web)}
        used |= {imported for imported in imports_of(name) if imported.rpartition(".")[0] in web}
        assert used == set(), f"{name} uses {used}"


def test_one_door_leads_to_prefect() -> None:
    assert outside(importers_of({"prefect"}, "api"), KNOW_PREFECT) == set()


def test_nothing_but_the_doors_speaks_http() -> None:
    importers = importers_of({"httpx", "requests", "urllib3", "aiohttp", "http"}, "api")
    assert outside(importers, SPEAK_HTTP) == set()


def test_nothing_in_the_api_commits_by_itself() -> None:
    commits = [
        f"{name}:{node.lineno}"
        for name in python_files("api")
        for node in ast.walk(tree_of(name))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "commit"
    ]
    assert commits == []


@pytest.mark.parametrize("field", Settings.model_fields)
def test_the_readme_lists_the_setting(field: str) -> None:
    assert re.search(rf"\bSPINE_{field.upper()}\b", (PROJECT / "README.md").read_text())


def flows_in_code() -> set[tuple[str, str]]:
    """Each flow of `flows/` as its entrypoint and the name that it gives itself."""
    return {
        (f"{name}:{function.name}", flow_name)
        for name in python_files("flows")
        for function in functions_of(name)
        for flow_name in names_given_by_flow(function)
    }


def names_given_by_flow(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if not (isinstance(called, ast.Name) and called.id == "flow"):
            continue
        keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
        given = [keyword.value for keyword in keywords if keyword.arg == "name"]
        yield from (str(value.value) for value in given if isinstance(value, ast.Constant))
        assert given, f"the flow {function.name} has no name of its own"


def test_every_flow_is_in_prefect_yaml_and_the_reverse() -> None:
    listed = YAML(typ="safe").load(PROJECT / "prefect.yaml")["deployments"]
    deployed = {(deployment["entrypoint"], deployment["name"]) for deployment in listed}
    assert len(deployed) == len(listed)
    assert flows_in_code() == deployed


def test_files_and_functions_fit_the_eye() -> None:
    too_long = [
        name
        for name in python_files("api", "flows", "deployments", "tests")
        if len((PROJECT / name).read_text().splitlines()) > MOST_LINES_OF_A_FILE
    ]
    too_long += [
        f"{name}:{function.name}"
        for name in python_files("api", "flows", "deployments")
        for function in functions_of(name)
        if (function.end_lineno or 0) - function.lineno >= MOST_LINES_OF_A_FUNCTION
    ]
    assert too_long == []


@pytest.mark.parametrize(
    "pattern",
    [r"(?<![\w.-])/(?:work|tmp|root)/\w", r"\b(?:T[O]DO|F[I]XME)\b"],
    ids=["a path of one machine", "a note to do it later"],
)
def test_no_committed_file_holds(pattern: str) -> None:
    held = [
        f"{name}:{number}"
        for name in committed_files()
        for number, line in enumerate(Path(PROJECT / name).read_text(errors="replace").splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert held == []
