"""Prefect or the database is down for a while."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from tests.support.api_here import api_here
from tests.support.postgres import fresh_database, postgresql_server
from tests.support.prefect_processes import prefect_environment, prefect_server
from tests.support.processes import free_port, wait_until
from tests.support.proxy import Proxy
from tests.support.stack import Api, PrefectStack, api_process
from tests.support.variants import one_by_default
from tests.support.web import WEB

TYPED = {"params": {"day": "2025-12-15", "tier": "A"}}


def assert_unavailable(send: Callable[[], httpx.Response]) -> None:
    began = time.monotonic()
    response = send()
    assert response.status_code == 503, response.text
    assert int(response.headers["Retry-After"]) > 0
    assert isinstance(response.json()["detail"], str)
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_prefect_is_stopped_and_started_under_the_api(tmp_path: Path) -> None:
    environment = prefect_environment(tmp_path / "prefect", free_port())
    with api_process(environment["PREFECT_API_URL"], tmp_path / "prefect", tmp_path / "api") as api:
        # The API starts, and says what is missing, also when Prefect is not there yet.
        ready = WEB.get(f"{api.url}/health/ready")
        assert ready.status_code == 503
        assert [ready.json()[part]["state"] for part in ("prefect", "database", "worker")] == ["down", "up", "down"]
        assert_unavailable(lambda: api.client.get("/workflows/runs"))
        with prefect_server(environment, tmp_path / "server.log"):
            wait_until(lambda: api.client.get("/workflows/runs").status_code == 200, "recovery", 20)
        assert_unavailable(lambda: api.client.get("/workflows/runs"))
        assert_unavailable(lambda: api.client.post("/workflows/trigger/demo.typed", json=TYPED))
        assert WEB.get(f"{api.url}/health/live").status_code == 200
        with prefect_server(environment, tmp_path / "server.log"):
            wait_until(lambda: api.client.get("/workflows/runs").status_code == 200, "recovery", 20)


@pytest.mark.slow
def test_a_prefect_that_hangs_is_503_in_time_and_then_works_again(proxied_api: Api, proxy: Proxy) -> None:
    with proxy.hanging():
        assert_unavailable(lambda: proxied_api.client.get("/workflows/runs"))
    assert proxied_api.client.get("/workflows/runs").status_code == 200


@pytest.mark.parametrize(
    "path", one_by_default(["/workflows/runs", "/workflows/definitions", "/workflows/definitions/demo.typed"])
)
def test_reads_survive_a_dropped_connection(proxied_api: Api, proxy: Proxy, path: str) -> None:
    proxy.drops_left = 1
    assert proxied_api.client.get(path).status_code == 200
    assert proxy.drops_left == 0


def test_a_database_that_is_down_is_503_and_recovers(stack: PrefectStack, tmp_path: Path) -> None:
    with (
        postgresql_server(tmp_path / "postgresql") as server,
        fresh_database(server) as database,
        api_here(stack.url, stack.home, tmp_path / "api", database) as api,
    ):
        assert api.client.get("/workflows/definitions").status_code == 200
        with psycopg.connect(server, autocommit=True) as connection:
            name = sql.Identifier(str(make_url(database).database))
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
            ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            connection.execute(ends, [make_url(database).database])
            assert_unavailable(lambda: api.client.get("/workflows/definitions"))
            ready = WEB.get(f"{api.url}/health/ready", timeout=10).json()
            assert (ready["database"]["state"], ready["prefect"]["state"]) == ("down", "up")
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
        assert api.client.get("/workflows/definitions").status_code == 200
