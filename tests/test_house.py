"""The rules of this code base that a test can check."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import spine
from ruamel.yaml import YAML
from spine.settings import Settings

from tests.support.processes import PROJECT
from tests.support.project import committed_files
from tests.support.source_code import (
    functions_of,
    importers_of,
    imports_of,
    outside,
    python_files,
    strings_of,
    tree_of,
)

MOST_LINES_OF_A_FILE = 300
MOST_LINES_OF_A_FUNCTION = 50

# The files that may import FastAPI. Flows use the services, so all others must work without it.
KNOW_HTTP = (
    *("api/spine/main.py", "api/spine/health.py"),
    # Imports what the API and Prefect's server need, before it forks them.
    "api/spine/up/nursery.py",
    *("api/spine/*routes.py", "api/spine/http/*.py"),
)
# The files that may import Prefect: its client, the start of its server, `spine up`, and Spine's own flows.
KNOW_PREFECT = (
    *("api/spine/prefect/*.py", "api/spine/prefect_server/*.py"),
    *("api/spine/up/*.py", "api/spine/flows/*.py"),
)
# The files that may import an HTTP client: besides those, the readers of a token issuer's keys, of Vault and of HTTP
# sources, and alert channels.
SPEAK_HTTP = (
    *KNOW_PREFECT,
    *("api/spine/auth/jwt.py", "api/spine/secrets/refs.py", "api/spine/sources/readers/http*.py"),
    # The errors of the S3 library for a lost connection.
    "api/spine/sources/readers/s3_failures.py",
    *("api/spine/egress/*.py", "api/spine/alerts/channels/*.py"),
)


# The parts of `spine`, from the top floor down. A part may import those after it in this list, never those before it.
FLOORS = (
    ("cli", "serve", "main", "doctor", "health", "metrics", "up", "flows", "health_checks"),
    ("administration", "sources", "alerts", "schedules", "workflows", "connections"),
    ("run_history", "cache"),
    ("http", "idempotency", "auth", "audit", "secrets", "prefect", "prefect_server"),
    ("installation", "migrations", "tables", "egress", "database"),
    (
        *("own_settings", "sqlite_locks", "table_revisions", "database_problems", "database_clock", "postgresql_times"),
        "unreadable",
    ),
    (
        "settings",
        "actors",
        "measures",
        "tracing",
        "names",
        "pagination",
        "background",
        "grouped",
        "log_throttle",
        "deployment_report",
        "private_files",
        "imports",
    ),
    ("severity", "schemas", "oddities", "json_rule", "errors", "text"),
)

# Words and idioms that are hard to understand, each with better words. Checked in docstrings and all other strings.
UNCLEAR = {
    r"tells?|told|telling": "report, show, say",
    r"asks?|asked|asking": "request, call, need",
    r"(?:comes?|came) (?:of|again|to nothing)": "result from, be repeated, have no effect",
    r"(?:go|goes|going|went) on": "continue",
    r"names? (?:no|nothing|none)": "was not found, is not set",
    r"leads? (?:out|around)": "is outside",
    r"(?:do|does|did) not hold": "is invalid",
    r"made a mistake": "internal error",
    r"anew": "again",
    r"somebody who": "someone who, a person who",
    r"suffers?": "fail",
    r"epitaph": "last message",
    r"in vain": "without success",
    r"whatever it is": "of any kind",
    r"(?:is|are) none of": "is not one of",
    r"for it to": "so that it",
    r"(?<!there )is no(?! longer| more)": "is not a",
    r"(?:is|are) not there": "was not found",
    r"promises?|grip|hold-off": "lease, claim",
}

INSTALLED = ("api/spine", "deployments/spine_worker")


def product_flows() -> list[str]:
    return [name for name in python_files("api") if name.startswith("api/spine/flows/")]


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=" ".join,
)
def test_the_checkers_find_nothing(command: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_routes_and_http_modules_import_fastapi() -> None:
    importers = importers_of({"fastapi", "starlette"}, "api", "flows", "deployments")
    assert "api/spine/main.py" in importers
    assert outside(importers, KNOW_HTTP) == set()


def test_flows_use_nothing_that_imports_fastapi() -> None:
    web = {name.removesuffix(".py").replace("/", ".") for name in importers_of({"fastapi", "starlette"}, "api")}
    for name in [*python_files("flows"), *product_flows()]:
        used = {imported for imported in imports_of(name) if any(f"{imported}.".startswith(f"{one}.") for one in web)}
        used |= {imported for imported in imports_of(name) if imported.rpartition(".")[0] in web}
        assert used == set(), f"{name} uses {used}"


def test_imports_point_down() -> None:
    height = {part: -place for place, part in enumerate(part for floor in FLOORS for part in floor)}
    up = []
    for name in python_files("api"):
        own = part_of(name.removeprefix("api/").removesuffix(".py").replace("/", "."))
        # `spine/__init__.py` has no floor: it imports the public API, and nothing imports more than that from it.
        if own == "__init__":
            continue
        used = {part_of(imported) for imported in imports_of(name) if imported.startswith("spine.")} - {own}
        assert {own, *used} <= set(height), f"{name}: give every part a place in FLOORS"
        up += [f"{name} imports {part}" for part in sorted(used) if height[part] > height[own]]
    assert up == []


def part_of(dotted: str) -> str:
    return dotted.split(".")[1]


def test_the_worker_and_the_api_do_not_import_each_other() -> None:
    assert importers_of({"spine"}, "deployments") == set()
    assert importers_of({"spine_worker"}, "api") == set()


def test_only_the_prefect_package_imports_prefect() -> None:
    assert outside(importers_of({"prefect"}, "api"), KNOW_PREFECT) == set()


def test_only_these_modules_import_an_http_client() -> None:
    importers = importers_of({"httpx", "requests", "urllib3", "aiohttp", "http"}, "api")
    assert outside(importers, SPEAK_HTTP) == set()


def test_only_transactions_commit() -> None:
    commits = [
        f"{name}:{node.lineno}"
        for name in python_files("api")
        for node in ast.walk(tree_of(name))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "commit"
    ]
    assert commits == []


@pytest.mark.parametrize("field", Settings.model_fields)
def test_the_readme_lists_the_setting(field: str) -> None:
    readmes = [PROJECT / "README.md", PROJECT / "deployments" / "README.md"]
    text = "".join(readme.read_text() for readme in readmes if readme.is_file())
    assert re.search(rf"\bSPINE_{field.upper()}\b", text)


def test_only_the_two_packages_are_installed() -> None:
    build = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"] == {"packages": list(INSTALLED)}
    assert {f"{package}/{name}" for package in INSTALLED for name in ("__init__.py", "py.typed")} <= {
        *committed_files()
    }


def test_the_public_api_is_documented_and_typed() -> None:
    assert sorted(spine.__all__) == ["SourceContent", "aread_source", "read_source"]
    for name in spine.__all__:
        public = getattr(spine, name)
        # A dataclass without a docstring has its signature as one.
        assert not (inspect.getdoc(public) or f"{name}(").startswith(f"{name}("), f"{name} has no docstring"
        for member_name, function in functions_in(public):
            assert inspect.getdoc(function), f"{name}.{member_name} has no docstring"
            hints = get_type_hints(function)
            wanted = {*inspect.signature(function).parameters, "return"} - {"self"}
            assert wanted <= hints.keys(), f"{name}.{member_name} lacks {wanted - hints.keys()}"


def functions_in(public: Any) -> Iterator[tuple[str, Any]]:
    """The function itself, or the public methods and properties that a class defines."""
    if inspect.isfunction(public):
        yield "", public
        return
    for name, member in vars(public).items():
        function = member.fget if isinstance(member, property) else member
        if inspect.isfunction(function) and not name.startswith("_"):
            yield name, function


def test_text_for_people_is_plain_english() -> None:
    unclear = [
        f"{name}:{line} says {found[0]!r}, not: {advice}"
        for name in python_files("api", "deployments", "flows")
        for line, text in strings_of(name)
        for words, advice in UNCLEAR.items()
        if (found := re.search(rf"\b(?:{words})\b", text, re.IGNORECASE))
    ]
    assert unclear == []


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


def test_files_and_functions_are_short() -> None:
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
def test_no_committed_file_contains(pattern: str) -> None:
    held = [
        f"{name}:{number}"
        for name in committed_files()
        for number, line in enumerate(Path(PROJECT / name).read_text(errors="replace").splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert held == []
