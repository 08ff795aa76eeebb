"""schemathesis tries every route of the OpenAPI document with valid and invalid requests, on both databases."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import LentDatabases
from tests.support.stack import ADMIN_KEY, Api, PrefectStack, api_process, bare_stack

pytestmark = pytest.mark.slow

EXAMPLES_FOR_A_ROUTE = 150
SEED = 1
CONFIG = Path(__file__).parent / "schemathesis.toml"
# The parameters of `demo.typed`.
PARAMETERS = {
    "type": "object",
    "title": "Parameters",
    "properties": {
        "day": {"type": "string", "format": "date", "title": "day"},
        "tier": {"enum": ["A", "B"], "type": "string", "title": "tier"},
        "options": {"anyOf": [{"type": "object"}, {"type": "null"}], "default": None, "title": "options"},
    },
    "required": ["day", "tier"],
}


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectStack]:
    """A Prefect server of its own with a workflow, Spine's flows and a worker that is online and takes no run."""
    with bare_stack(tmp_path_factory.mktemp("schemathesis"), on_sqlite=True) as stack:
        stack.post("/work_pools/", {"name": "spine", "type": "process"})
        stack.post("/work_pools/spine/workers/heartbeat", {"name": "idle", "heartbeat_interval_seconds": 100_000})
        stack.deploy_own_flows()
        workflow = {"name": "demo.typed", "flow_id": stack.flow_id("demo.typed"), "work_pool_name": "spine"}
        schema = {"parameter_openapi_schema": PARAMETERS, "enforce_parameter_schema": True}
        stack.post("/deployments/", {**workflow, **schema, "entrypoint": "flows.py:typed", "path": "."})
        yield stack


@pytest.fixture(params=["sqlite", "postgresql"])
def busy_api(request: pytest.FixtureRequest, prefect: PrefectStack, tmp_path: Path) -> Iterator[Api]:
    """The API on each database, with one of everything that a route can name."""
    if request.param == "sqlite":
        with api_process(prefect.url, prefect.home, tmp_path) as api:
            yield with_one_of_each(api)
        return
    databases: LentDatabases = request.getfixturevalue("postgresql_databases")
    with (
        databases.lend() as url,
        api_process(prefect.url, prefect.home, tmp_path, url) as api,
    ):
        yield with_one_of_each(api)


def with_one_of_each(api: Api) -> Api:
    """Make what `schemathesis.toml` names."""
    schedule = {"name": "nightly", "target_type": "WORKFLOW", "target_name": "demo.typed", "interval_seconds": 86_400}
    webhook = {"name": "desk", "channel_type": "webhook", "config": {"url": "https://example.com/none"}}
    database = {"name": "warehouse", "db_type": "postgresql", "host": "db.example.com", "port": 5432, "database": "d"}
    source = {"name": "trades", "source_type": "http", "config": {"url": "https://example.com/trades.csv"}}
    alert = {"severity": "INFO", "title": "Rows", "message": "3 of 9", "source": "desk.load"}
    for path, body in (
        ("/schedules", {**schedule, "target_params": {"day": "2026-01-05", "tier": "A"}}),
        ("/alerts/channels", webhook),
        ("/sources/connections", database),
        ("/sources", source),
        ("/alerts", alert),
        ("/keys", {"name": "desk-key"}),
    ):
        made = api.client.post(path, json=body)
        assert made.status_code in (201, 409), made.text
    api.trigger("demo.typed", day="2026-01-05", tier="A")
    return api


def test_schemathesis_finds_nothing(busy_api: Api, tmp_path: Path) -> None:
    options = {
        "--checks": "all",
        "--phases": "examples,coverage,fuzzing,stateful",
        "--max-examples": str(EXAMPLES_FOR_A_ROUTE),
        "--seed": str(SEED),
        "--header": f"X-API-Key: {ADMIN_KEY}",
        "--warnings": "off",
        # Not a test of speed; a Prefect server on SQLite now and then stands still for a minute.
        "--max-response-time": "600",
        "--request-timeout": "600",
    }
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
    command += [f"{busy_api.url}/openapi.json", "--no-color", *(part for pair in options.items() for part in pair)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Stateful (disabled)" not in done.stdout
    assert "request crashed" not in busy_api.log.read_text()
