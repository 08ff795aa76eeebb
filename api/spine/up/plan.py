"""The addresses and folders of one start, decided before anything runs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

# Prefect's API knows no credentials of its own by default, so it listens on the loopback whatever `--host` says.
LOOPBACK = "127.0.0.1"


class WorkerType(StrEnum):
    """The type of worker that runs flows: one that starts them at once, or Prefect's own."""

    SPINE = "spine"
    PROCESS = "process"


@dataclass(frozen=True)
class Plan:
    """One start of the stack; all paths are absolute.

    `external_prefect` is the `PREFECT_API_URL` that the user named; without it a Prefect server is started.
    """

    home: Path
    project: Path
    host: str
    port: int
    prefect_host: str
    prefect_port: int
    external_prefect: str | None
    prefect_ui: str
    worker: WorkerType = WorkerType.SPINE

    @property
    def prefect_api(self) -> str:
        """The base URL of Prefect's API."""
        return self.external_prefect or f"{address(self.prefect_host, self.prefect_port)}/api"

    @property
    def api(self) -> str:
        """The base URL of Spine's API, as seen from this machine."""
        return address(self.host, self.port)


def make_plan(
    home: Path,
    host: str,
    port: int,
    prefect_port: int,
    worker: WorkerType = WorkerType.SPINE,
    environ: Mapping[str, str] = os.environ,
) -> Plan:
    """Decide the addresses; Prefect's own variables for host, API and UI are respected."""
    external = environ.get("PREFECT_API_URL", "").rstrip("/") or None
    prefect_host = environ.get("PREFECT_SERVER_API_HOST") or LOOPBACK
    derived_ui = external.removesuffix("/api") if external else address(prefect_host, prefect_port)
    return Plan(
        home=home.absolute(),
        project=Path.cwd(),
        host=host,
        port=port,
        prefect_host=prefect_host,
        prefect_port=prefect_port,
        external_prefect=external,
        prefect_ui=environ.get("PREFECT_UI_URL") or derived_ui,
        worker=worker,
    )


def address(host: str, port: int) -> str:
    """The URL under which a server bound to `host` is reached from this machine."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 (compared, not bound)
        host = LOOPBACK
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
