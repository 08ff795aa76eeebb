"""Runs of flows in the test's own process, on a Prefect server that other tests use, too."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_HOME,
    PREFECT_LOCAL_STORAGE_PATH,
    temporary_settings,
)
from prefect.utilities.asyncutils import run_coro_as_sync

from tests.support.stack import PrefectStack


@contextmanager
def flows_on(stack: PrefectStack, folder: Path) -> Iterator[Path]:
    """Let flows that are called run on this server; gives the folder of their results."""
    settings = {
        PREFECT_API_URL: stack.url,
        PREFECT_HOME: folder / "prefect",
        PREFECT_LOCAL_STORAGE_PATH: folder / "results",
        # Else each run ends by waiting up to a second for the thread that says that it is alive.
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with temporary_settings(settings):
        try:
            yield folder / "results"
        finally:
            # What is not sent yet would be sent when this process ends, to a server that may be gone by then.
            run_coro_as_sync(_send_everything())


async def _send_everything() -> None:
    for sent in (APILogWorker.instance().drain(), EventsWorker.drain_all()):
        if inspect.isawaitable(sent):
            await sent
