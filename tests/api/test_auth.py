"""Credentials: every route needs one, keys are made on the command line, scopes are enforced."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from spine.cli import app
from spine.settings import get_settings
from typer.testing import CliRunner, Result

from tests.support.processes import PROJECT
from tests.support.stack import ADMIN_KEY, Api, PrefectStack
from tests.support.variants import one_in
from tests.support.web import PATIENCE, WEB

TRIGGER = "/workflows/trigger/demo.typed"
NEVER_A_RUN = "00000000-0000-0000-0000-000000000000"

# The application is asked in a process of its own, because making it takes over the logging of its process.
LIST_ROUTES = """
import json
from spine.main import create_app

def listed(route):
    included = getattr(route, "effective_route_contexts", None)
    if included:
        return [one for inner in included() for one in listed(inner)]
    # The folder with the scripts of the documentation is mounted and has no methods of its own.
    return [[route.path, list(getattr(route, "methods", []))]]

print(json.dumps([one for route in create_app().routes for one in listed(route)]))
"""


def environment_of(api: Api) -> dict[str, str]:
    database = {"SPINE_DATABASE_URL": api.database_url} if api.database_url else {}
    return {"SPINE_HOME": str(api.settings.home), **database}


def spine(api: Api, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the real command in the environment of this API."""
    return subprocess.run(
        [sys.executable, "-m", "spine.cli", *arguments],
        env={**os.environ, **environment_of(api)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )


def sentence(done: Result) -> str:
    """The one sentence that a command printed after the database that it uses."""
    database, said = done.stderr.splitlines()
    assert database.startswith("Database: ")
    return said


def make_key(api: Api, name: str, *scopes: str, domains: Sequence[str] = (), expires: str = "never") -> str:
    """Make a key as the command does, without a process of its own: its start takes longer than all else."""
    options = [part for scope in scopes for part in ("--scope", scope)]
    options += [part for domain in domains for part in ("--domain", domain)]
    done = invoke(api, "keys", "create", name, *options, "--expires", expires)
    assert done.exit_code == 0, done.output
    # An API in this process may log at the same time.
    return next(line for line in done.stdout.splitlines() if line.startswith("spine_"))


def invoke(api: Api, *arguments: str) -> Result:
    """Run the command in this process, in the environment of this API."""
    with pytest.MonkeyPatch.context() as patched:
        for variable, value in environment_of(api).items():
            patched.setenv(variable, value)
        get_settings.cache_clear()
        done = CliRunner().invoke(app, arguments)
    get_settings.cache_clear()
    return done


def unique(name: str) -> str:
    return f"{name}-{uuid4().hex[:8]}"


def routes_of_the_app() -> list[tuple[str, str]]:
    """The path and method of each route, including those that the OpenAPI document leaves out."""
    done = subprocess.run(
        [sys.executable, "-c", LIST_ROUTES], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60
    )
    return [(path, method) for path, methods in json.loads(done.stdout.splitlines()[-1]) for method in methods]


@pytest.fixture(scope="module")
def routes(api: Api) -> list[tuple[str, str]]:
    """The routes in the code, after checking that the running API documents no others."""
    found = routes_of_the_app()
    document = WEB.get(f"{api.url}/openapi.json").json()
    documented = {(path, method.upper()) for path, operations in document["paths"].items() for method in operations}
    assert len(documented) > 5
    assert documented <= set(found)
    return found


@pytest.mark.parametrize(
    "headers",
    one_in(
        3,
        [
            {},
            {"X-API-Key": "spine_wrong"},
            {"X-API-Key": ""},
            {"Authorization": "Bearer spine_wrong"},
            {"Authorization": "Bearer a.b.c"},
            {"Authorization": "Bearer"},
            {"Authorization": f"Basic {ADMIN_KEY}"},
            {"Authorization": ADMIN_KEY},
            {"X-API-Key": ADMIN_KEY[:-1]},
            {"X-API-Key": "wrong", "Authorization": f"Bearer {ADMIN_KEY}"},
        ],
    ),
    ids=lambda headers: " and ".join(f"{name}={value}" for name, value in headers.items()) or "nothing",
)
def test_every_route_of_the_api_rejects_bad_credentials(
    headers: dict[str, str], api: Api, routes: list[tuple[str, str]]
) -> None:
    below = [(path, method) for path, method in routes if path.startswith("/api/v1")]
    assert len(below) >= 7
    with httpx.Client(base_url=api.url, headers=headers, timeout=PATIENCE) as client:
        for path, method in below:
            address = path.replace("{run_id}", NEVER_A_RUN).replace("{workflow_name}", "demo.typed")
            response = client.request(method, address)
            assert response.status_code == 401, (method, path, response.text)
            assert method == "HEAD" or isinstance(response.json()["detail"], str)
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert response.headers["X-Request-ID"]


def test_only_health_and_the_documentation_answer_without_a_credential(api: Api, routes: list[tuple[str, str]]) -> None:
    free = {path for path, _ in routes if not path.startswith("/api/v1/")}
    assert free == {
        "/health/live",
        "/health/ready",
        "/health/serving",
        "/metrics",
        "/docs",
        "/docs/oauth2-redirect",
        "/openapi.json",
    }
    for path in free:
        assert WEB.get(f"{api.url}{path}").status_code == 200, path


def test_the_documentation_loads_no_script_from_another_host(api: Api) -> None:
    page = WEB.get(f"{api.url}/docs").text
    scripts = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(scripts) >= 2
    assert all(script.startswith("/") for script in scripts)
    assert all(WEB.get(f"{api.url}{script}").status_code == 200 for script in scripts)


@pytest.mark.parametrize(
    "headers",
    [{"X-API-Key": ADMIN_KEY}, {"Authorization": f"Bearer {ADMIN_KEY}"}, {"authorization": f"bearer {ADMIN_KEY}"}],
    ids=["X-API-Key", "Bearer", "bearer in lower case"],
)
def test_a_key_is_accepted_in_either_header(headers: dict[str, str], each_api: Api) -> None:
    response = WEB.get(f"{each_api.url}/api/v1/workflows/definitions", headers=headers)
    assert response.status_code == 200


def test_a_read_key_can_read_but_cannot_start_anything(either_api: Api, stack: PrefectStack) -> None:
    reader = either_api.as_key(make_key(either_api, unique("reader"), "read"))
    assert reader.get("/workflows/runs").status_code == 200
    typed = stack.copy_deployment("demo.typed")
    refused = reader.post(f"/workflows/trigger/{typed}", json={"params": {"day": "2025-12-12", "tier": "A"}})
    assert refused.status_code == 403
    assert "'write'" in refused.json()["detail"]
    assert refused.headers["X-Request-ID"]
    assert stack.post("/flow_runs/count", {"flows": {"name": {"any_": [typed]}}}) == 0


def test_a_new_key_has_only_the_read_scope_by_default(api: Api) -> None:
    reader = api.as_key(make_key(api, unique("plain")))
    assert reader.get("/workflows/runs").status_code == 200
    for path in (TRIGGER, f"/workflows/runs/{NEVER_A_RUN}/cancel", f"/workflows/runs/{NEVER_A_RUN}/retry"):
        assert reader.post(path).status_code == 403, path


@pytest.mark.parametrize("scope", ["write", "admin"])
def test_the_larger_scopes_include_the_smaller_ones(scope: str, api: Api) -> None:
    client = api.as_key(make_key(api, unique(scope), scope))
    assert client.get("/workflows/runs").status_code == 200
    # Past the scope, the workflow has its say.
    assert client.post("/workflows/trigger/demo.nothing").status_code == 404


def test_the_run_carries_the_name_of_the_key_that_started_it(api: Api) -> None:
    name = unique("starter")
    writer = api.as_key(make_key(api, name, "write"))
    started = writer.post(TRIGGER, json={"params": {"day": "2025-12-12", "tier": "A"}})
    assert started.status_code == 201
    assert api.run(started.json()["run_id"])["triggered_by"] == name


def test_a_key_works_at_once_and_is_rejected_right_after_its_revocation(either_api: Api) -> None:
    name = unique("short-lived")
    client = either_api.as_key(make_key(either_api, name))
    assert client.get("/workflows/runs").status_code == 200
    revoked = invoke(either_api, "keys", "revoke", name)
    assert revoked.exit_code == 0, revoked.stderr
    response = client.get("/workflows/runs")
    assert response.status_code == 401
    assert "revoked" in response.json()["detail"]


def test_the_name_of_an_active_key_is_rejected_with_one_sentence(each_api: Api) -> None:
    name = unique("twice")
    first = make_key(each_api, name)
    again = invoke(each_api, "keys", "create", name)
    assert (again.exit_code, again.stdout) == (1, "")
    assert sentence(again).startswith(f"An active API key is already named '{name}'")
    assert each_api.as_key(first).get("/workflows/runs").status_code == 200


def test_a_name_can_be_used_again_after_the_revocation(either_api: Api) -> None:
    name = unique("again")
    first = make_key(either_api, name)
    assert invoke(either_api, "keys", "revoke", name).exit_code == 0
    second = make_key(either_api, name, "write")
    assert first != second
    assert either_api.as_key(second).get("/workflows/runs").status_code == 200
    assert either_api.as_key(first).get("/workflows/runs").status_code == 401


def test_revoking_an_unknown_key_fails_with_one_sentence(either_api: Api) -> None:
    done = invoke(either_api, "keys", "revoke", "nobody")
    assert (done.exit_code, done.stdout) == (1, "")
    assert sentence(done) == "No active API key has the id or name 'nobody'."


@pytest.mark.parametrize("name", ["", "x" * 101], ids=["empty", "101 characters"])
def test_a_name_that_cannot_be_stored_is_rejected_with_one_sentence(name: str, either_api: Api) -> None:
    done = invoke(either_api, "keys", "create", name)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "name" in sentence(done)


def everything_stored(api: Api) -> str:
    """The whole content of the database, as text."""
    if api.settings.database_url is None:
        files = sorted(Path(api.settings.home).glob("spine.db*"))
        return "".join(file.read_bytes().decode("latin-1") for file in files)
    with psycopg.connect(api.settings.database_url.get_secret_value()) as connection:
        tables = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        rows: list[Any] = []
        for (table,) in tables.fetchall():
            rows += connection.execute(f'SELECT t::text FROM "{table}" t').fetchall()  # noqa: S608
        return "\n".join(row for (row,) in rows)


def test_the_database_stores_the_hash_of_a_key_and_never_the_key(either_api: Api) -> None:
    name = unique("hidden")
    key = make_key(either_api, name)
    either_api.as_key(key).get("/workflows/runs")
    stored = everything_stored(either_api)
    assert name in stored
    assert key not in stored
    assert key.removeprefix("spine_") not in stored
    assert ADMIN_KEY not in stored


def test_the_list_of_keys_shows_names_scopes_and_states_and_no_secret(either_api: Api) -> None:
    kept, gone = unique("kept"), unique("gone")
    keys = [make_key(either_api, kept, "read", "write"), make_key(either_api, gone)]
    invoke(either_api, "keys", "revoke", gone)
    shown = invoke(either_api, "keys", "list")
    assert shown.exit_code == 0
    lines = {line.split()[1]: line for line in shown.stdout.splitlines()}
    assert "read,write" in lines[kept]
    assert lines[kept].endswith("active")
    assert "revoked" in lines[gone]
    assert {"domains", "used", "expires"} <= set(shown.stdout.splitlines()[0].split())
    for secret in (*keys, ADMIN_KEY):
        assert secret not in shown.stdout + shown.stderr
        assert secret[-20:] not in shown.stdout + shown.stderr


def test_standard_output_has_only_the_created_key(api: Api) -> None:
    done = spine(api, "keys", "create", unique("piped"))
    assert done.stdout.startswith("spine_")
    assert done.stdout.count("\n") == 1
    assert done.stdout.strip() not in done.stderr
