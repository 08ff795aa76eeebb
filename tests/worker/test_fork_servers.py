"""What passes between a worker and its fork servers, and what the processes that they fork have of it."""

import os
import re
import signal
from pathlib import Path

import psutil
import pytest
from spine_worker.forking.messages import Exited, Load, Loaded, Start

from tests.support.processes import wait_until
from tests.worker.engine import Project


def test_servers_that_are_asked_for_at_once_hold_nothing_of_each_other(project: Project) -> None:
    project.write("flow_at_once.py", "")
    os.kill(project.engine.pid, signal.SIGSTOP)
    asked = project.engine.ask(Load("flow_at_once.py:tells"), Load("flow_at_once.py:tells"))
    os.kill(project.engine.pid, signal.SIGCONT)
    first, second = project.engine.started(asked)
    assert [server.answer(Loaded).refusal for server in (first, second)] == [None, None]
    os.kill(second.pid, signal.SIGKILL)
    with pytest.raises(EOFError):
        second.answer(Loaded)
    first.socket.close()


def test_a_server_sees_runs_end_whatever_the_import_has_done_to_signals(project: Project) -> None:
    code = """
    import signal
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    """
    project.write("flow_signals.py", code)
    server, loaded = project.engine.load("flow_signals.py:tells")
    assert loaded.refusal is None
    (run,) = server.started(server.ask(Start({}, stream_output=False)))
    ignored = re.search(r"SigIgn:\s*(\w+)", Path(f"/proc/{run.pid}/status").read_text())
    assert ignored
    assert int(ignored[1], 16) & 1 << signal.SIGINT - 1
    os.kill(run.pid, signal.SIGKILL)
    assert server.answer(Exited) == Exited(run.pid, -signal.SIGKILL)
    server.socket.close()


def test_a_server_that_is_killed_leaves_no_package_behind_that_hangs_when_it_is_tried(project: Project) -> None:
    project.write("hanging.py", "import time\ntime.sleep(600)")
    (server,) = project.engine.started(project.engine.ask(Load("flow.py:tells", ["hanging"])))
    wait_until(lambda: bool(psutil.Process(server.pid).children()), "the package to be tried", 10)
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(EOFError):
        server.answer(Loaded)
