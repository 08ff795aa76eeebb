"""Prefect's own processes: its server, with Spine's waits for SQLite's lock, and its workers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.processes import running, wait_for_http
from tests.support.web import LONGEST_OUTAGE


def prefect_environment(home: Path, port: int) -> dict[str, str]:
    """What the Prefect processes of one stack see; nothing of the developer's own Prefect profile."""
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_API_REQUEST_TIMEOUT": str(LONGEST_OUTAGE),
        # As `spine up` does: pages of deployments are ten times faster with the zones of the tzdata package.
        "PYTHONTZPATH": "",
        # Tests store hundreds of runs that were due long ago; marking them all as late keeps SQLite locked for minutes.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
        # Each time it looks at every run that was cancelled within a day, of which tests leave hundreds.
        "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "10",
        "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "8",
        "SPINE_WAREHOUSE_URL": str(home.parent / "warehouse"),
        "SPINE_HOME": str(home.parent / "spine"),
        "SPINE_FILE_ROOTS": str(home.parent / "files"),
        "SPINE_ALLOW_PRIVATE_ADDRESSES": "true",
    }


# How Prefect starts its server, without Spine.
STOCK = ("prefect", "server", "start")


@contextmanager
def prefect_server(
    environment: dict[str, str], log: Path, module: tuple[str, ...] = ("spine.prefect_server",)
) -> Iterator[psutil.Popen]:
    """A Prefect server that answers."""
    port = environment["PREFECT_API_URL"].split(":")[2].split("/")[0]
    command = [*module, "--host", "127.0.0.1", "--port", port]
    with running(command, environment, log) as process:
        wait_for_http(f"{environment['PREFECT_API_URL']}/health", process, log)
        yield process


@contextmanager
def prefect_worker(
    environment: dict[str, str], log: Path, pool: str = "spine", kind: str = "spine"
) -> Iterator[psutil.Popen]:
    """A worker of this type. One of ours wakes up by itself, and asking every second takes the server's time."""
    pause = {"PREFECT_WORKER_QUERY_SECONDS": "5" if kind == "spine" else "1"}
    command = ["prefect", "worker", "start", "--pool", pool, "--type", kind]
    with running(command, {**pause, **environment}, log) as process:
        yield process
