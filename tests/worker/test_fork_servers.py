"""The messages between a worker and its fork servers, and what the forked processes inherit."""

import os
import re
import signal
from pathlib import Path

import psutil
import pytest
from spine_worker.forking.messages import Exited, Load, Loaded, Start

from tests.support.processes import wait_until
from tests.worker.engine import Project


def test_an_engine_server_imports_nothing_of_spine_but_the_fork_servers(project: Project) -> None:
    code = """
    import sys
    roots = {"spine", "spine_worker", "api", "deployments", "flows", "tests"}
    found = {name for name in sys.modules if name.partition(".")[0] in roots} - {"spine_worker"}
    assert all(name.startswith("spine_worker.forking") for name in found), found
    """
    project.write("flow_without_spine.py", code)
    assert project.load("flow_without_spine.py").side_effect is None


def test_servers_that_are_requested_at_once_inherit_nothing_of_each_other(project: Project) -> None:
    project.write("flow_at_once.py", "")
    os.kill(project.engine.pid, signal.SIGSTOP)
    requested = project.engine.request(Load("flow_at_once.py:reports"), Load("flow_at_once.py:reports"))
    os.kill(project.engine.pid, signal.SIGCONT)
    first, second = project.engine.started(requested)
    assert [server.answer(Loaded).side_effect for server in (first, second)] == [None, None]
    os.kill(second.pid, signal.SIGKILL)
    with pytest.raises(EOFError):
        second.answer(Loaded)
    first.socket.close()


def test_a_server_notices_the_end_of_runs_if_the_import_has_changed_signal_handlers(project: Project) -> None:
    code = """
    import signal
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    """
    project.write("flow_signals.py", code)
    server, loaded = project.engine.load("flow_signals.py:reports")
    assert loaded.side_effect is None
    (run,) = server.started(server.request(Start({}, stream_output=False)))
    ignored = re.search(r"SigIgn:\s*(\w+)", Path(f"/proc/{run.pid}/status").read_text())
    assert ignored
    assert int(ignored[1], 16) & 1 << signal.SIGINT - 1
    os.kill(run.pid, signal.SIGKILL)
    assert server.answer(Exited) == Exited(run.pid, -signal.SIGKILL)
    server.socket.close()


def test_a_server_that_is_killed_leaves_no_process_behind_that_tries_a_package(project: Project) -> None:
    project.write("hanging.py", "import time\ntime.sleep(600)")
    (server,) = project.engine.started(project.engine.request(Load("flow.py:reports", ["hanging"])))
    wait_until(lambda: bool(psutil.Process(server.pid).children()), "the package to be tried", 60)
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(EOFError):
        server.answer(Loaded)
