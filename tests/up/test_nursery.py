"""The processes that are forked from one interpreter are what `python -m <module>` would be."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import pytest
from spine.up.home import prepare_home, read_records
from spine.up.plan import MARKER
from spine.up.processes import WORKER, Child, Children, alive, of_home, running, stop_all
from spine.up.waiting import UpError

from tests.support.processes import wait_until
from tests.up.support import CLEAN

pytestmark = pytest.mark.slow

# Sends what it sees over the descriptor that comes first in its arguments, and exits with the code that it gets.
PROBE = """
import gc, json, os, socket, sys, zoneinfo
from prefect.settings import PREFECT_WORKER_QUERY_SECONDS
with socket.socket(fileno=int(sys.argv[1])) as connection:
    print("hello from", __name__, flush=True)
    facts = {
        "name": __name__, "arguments": sys.argv[2:], "command": sys.orig_argv, "environment": dict(os.environ),
        "leads": os.getsid(0) == os.getpid(), "pause": PREFECT_WORKER_QUERY_SECONDS.value(), "zones": zoneinfo.TZPATH,
        "collects": gc.isenabled(), "descriptors": sorted(map(int, os.listdir("/proc/self/fd"))), "folder": os.getcwd(),
    }
    connection.sendall(json.dumps(facts).encode())
    sys.exit(int(connection.recv(10)))
"""


@dataclass
class Nursery:
    """A nursery and what it forks."""

    home: Path
    children: Children
    environment: dict[str, str]

    @contextmanager
    def probe(self, *arguments: str, **variables: str) -> Iterator[tuple[Child, socket.socket, dict[str, Any]]]:
        """A forked process of the module, a socket to it, and what it has seen."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                environment = {**self.environment, **variables}
                child = self.children.launch("probe", ["probe", *arguments], environment, [theirs.fileno()])
            ours.settimeout(60)
            yield child, ours, json.loads(ours.recv(1 << 20))


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    home = tmp_path / "home"
    prepare_home(home)
    (tmp_path / "probe.py").write_text(PROBE)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**CLEAN, "PYTHONPATH": path, MARKER: str(home), "PYTHONTZPATH": ""}
    children = Children(home, tmp_path)
    forks = children.start_nursery(environment)
    wait_until(forks.is_ready, "the nursery", 90)
    yield Nursery(home, children, environment)
    for process in of_home(home):
        process.kill()


def test_a_forked_process_is_what_a_new_interpreter_would_be(nursery: Nursery) -> None:
    given = {"PREFECT_WORKER_QUERY_SECONDS": "7", "SPINE_API_KEY": "secret", "PYTHONTZPATH": "/zones"}
    with nursery.probe("--type", "spine", **given) as (child, connection, seen):
        process = psutil.Process(child.process.pid)
        assert seen["environment"] == {**nursery.environment, **given}
        assert (seen["name"], seen["folder"]) == ("__main__", str(nursery.home.parent))
        assert seen["arguments"] == ["--type", "spine"]
        assert (seen["leads"], seen["collects"], seen["pause"], seen["zones"]) == (True, True, 7.0, ["/zones"])
        assert seen["command"] == process.cmdline()
        assert process.cmdline()[1:4] == ["-P", "-m", "probe"]
        # Streams, the socket, and the list of descriptors itself: nothing of the nursery.
        assert len(seen["descriptors"]) == 5
        # Other processes do not see what it was given, and see whose it is.
        assert process.environ()[MARKER] == str(nursery.home)
        assert "SPINE_API_KEY" not in process.environ()
        assert read_records(nursery.home)["probe"][0] == process.pid
        connection.sendall(b"0")
        assert child.process.wait() == 0
    assert "hello from __main__" in child.log.read_text()


@pytest.mark.parametrize("is_over", [False, True], ids=["with the nursery", "after its end"])
def test_how_a_process_ends_is_known(nursery: Nursery, is_over: bool) -> None:
    with nursery.probe() as (first, to_first, _), nursery.probe() as (second, _, _):
        if is_over:
            nursery.children.end_nursery()
        assert first.process.poll() is None
        to_first.sendall(b"3")
        assert first.process.wait() == 3
        os.kill(second.process.pid, signal.SIGKILL)
        assert second.process.wait() == -signal.SIGKILL
        assert not psutil.pid_exists(first.process.pid)
        assert not psutil.pid_exists(second.process.pid)


def test_a_nursery_that_ends_early_is_reported_and_nothing_is_left(nursery: Nursery) -> None:
    with nursery.probe() as (child, _, _):
        os.kill(read_records(nursery.home)["nursery"][0], signal.SIGKILL)

        def is_reported() -> bool:
            try:
                nursery.children.check()
            except UpError as error:
                return "The nursery was killed by signal 9" in str(error)
            return False

        wait_until(is_reported, "the end to be reported", 10)
        stop_all(nursery.home, Event())
        assert running(nursery.home) == []
        assert [one for one in psutil.process_iter() if one.pid == child.process.pid and alive(one)] == []


def test_a_module_that_cannot_be_imported_ends_with_its_error_in_the_log(nursery: Nursery) -> None:
    child = nursery.children.launch(WORKER, ["no_such_module"], nursery.environment)
    assert child.process.wait() == 1
    assert "no_such_module" in child.last_message()
