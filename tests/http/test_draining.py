"""A server that is stopped serves for a while, and says that it stops."""

import signal
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from spine.serve import Server, server_config
from spine.settings import Settings

from tests.support.api_here import app_here


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return app_here(Settings(home=tmp_path))


@pytest.fixture
def server(app: FastAPI) -> Server:
    config = server_config(lambda: app, Settings(), log_config=None)
    config.load()
    return Server(config, drain_seconds=60)


async def get(app: FastAPI, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://spine") as client:
        return await client.get(path)


async def test_the_first_sigterm_announces_the_end_and_the_second_one_brings_it(server: Server, app: FastAPI) -> None:
    serving = await get(app, "/health/serving")
    assert (serving.status_code, serving.json(), "Connection" in serving.headers) == (200, {"status": "serving"}, False)
    server.handle_exit(signal.SIGTERM, None)
    assert await server.on_tick(1) is False
    stopping = await get(app, "/health/serving")
    assert (stopping.status_code, stopping.json()) == (503, {"status": "stopping"})
    live = await get(app, "/health/live")
    assert (live.status_code, live.headers["Connection"]) == (200, "close")
    server.handle_exit(signal.SIGTERM, None)
    assert await server.on_tick(1) is True


async def test_it_ends_when_its_time_is_over(server: Server) -> None:
    server.handle_exit(signal.SIGTERM, None)
    assert server.should_exit is False
    server._stops_at = 0.0
    assert await server.on_tick(1) is True


async def test_ctrl_c_ends_it_at_once(server: Server) -> None:
    server.handle_exit(signal.SIGINT, None)
    assert await server.on_tick(1) is True
