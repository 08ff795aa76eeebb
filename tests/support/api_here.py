"""The API in a thread of the test's own process, where starting a process of its own would prove nothing more."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import uvicorn
from fastapi import FastAPI
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from spine import main
from spine.serve import server_config
from spine.settings import Settings

from tests.support.processes import wait_until
from tests.support.stack import ALONE, Api, settings_of


@contextmanager
def api_here(
    prefect_url: str, prefect_home: Path, folder: Path, database_url: str | None = None, **more: str
) -> Iterator[Api]:
    """An API that answers, as `api_process` gives it; its log goes where that of the test does."""
    settings = settings_of(folder, database_url, **{**ALONE, **more})
    server = uvicorn.Server(_config(settings))

    def serve() -> None:
        # The settings of Prefect belong to the thread, and to what runs in it.
        with temporary_settings({PREFECT_API_URL: prefect_url, PREFECT_HOME: prefect_home}):
            server.run()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "the API to start", 30, every=0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Api(f"http://127.0.0.1:{port}", psutil.Process(), settings, folder / "no.log")
    finally:
        server.should_exit = True
        thread.join(30)


def app_here(settings: Settings) -> FastAPI:
    """The application, in a process whose log is pytest's."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(main, "configure_logging", lambda _: None)
        return main.create_app(settings)


def _config(settings: Settings) -> uvicorn.Config:
    app = app_here(settings)
    return server_config(lambda: app, settings, log_config=None)
