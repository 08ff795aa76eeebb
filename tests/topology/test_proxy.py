"""The proxy with its own file, when one of two servers dies."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.processes import free_port, running_program, wait_until
from tests.support.web import WEB
from tests.topology.definitions import DEPLOYMENTS
from tests.topology.running import is_reachable

# What Python's server answers to every POST; 502 is a body that Caddy could not send to another server.
REACHED, REFUSED = 501, 502


@contextmanager
def server(port: int, folder: Path) -> Iterator[psutil.Popen]:
    """A process that answers."""
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with running_program(command, {}, folder / "server.log", folder) as process:
        wait_until(lambda: is_reachable(f"http://127.0.0.1:{port}"), "a server to start", 30)
        yield process


@pytest.mark.skipif(not shutil.which("caddy"), reason="Caddy reads its file")
def test_requests_that_meet_a_dead_server_do_not_take_the_other_out(tmp_path: Path) -> None:
    port, first, second = free_port(), free_port(), free_port()
    sites = {"SPINE_SITE": f"http://:{port}", "PREFECT_SITE": f"http://:{free_port()}"}
    upstreams = {f"{site}_UPSTREAMS": f"127.0.0.1:{first} 127.0.0.1:{second}" for site in ("SPINE", "PREFECT")}
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(DEPLOYMENTS / "proxy" / "Caddyfile")]
    for health in ("health/serving", "api/health"):
        (tmp_path / health).parent.mkdir()
        (tmp_path / health).touch()
    with ExitStack() as cleanup:
        killed = cleanup.enter_context(server(first, tmp_path))
        cleanup.enter_context(server(second, tmp_path))
        environment = {**sites, **upstreams, "HOME": str(tmp_path)}
        cleanup.enter_context(running_program(command, environment, tmp_path / "proxy.log"))
        wait_until(lambda: is_reachable(f"http://127.0.0.1:{port}"), "the proxy to start", 30)
        killed.kill()
        killed.wait()
        answers = [WEB.post(f"http://127.0.0.1:{port}", content=b"a body").status_code for _ in range(12)]
    assert REACHED in answers
    assert set(answers) <= {REACHED, REFUSED}
