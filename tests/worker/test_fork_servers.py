"""What passes between a worker and its fork servers, and what the processes that they fork have of it."""

import os
import signal

import pytest

from deployments.forking.messages import Load, Loaded
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
