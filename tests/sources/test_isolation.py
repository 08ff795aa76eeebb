"""Tasks in processes of their own: killed at the deadline, limited in memory, and gone when their owner is."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from math import inf
from pathlib import Path

import psutil
import pytest
from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory
from spine.sources.isolation import processes
from spine.sources.isolation.processes import TaskProcess
from spine.sources.isolation.task import Channel, Task

from tests.support.processes import PROJECT, wait_until

MEMORY = 200_000_000


def echo(channel: Channel) -> None:
    while True:
        channel.send(channel.receive())


def report_pid(channel: Channel) -> None:
    channel.receive()
    channel.send(os.getpid())
    time.sleep(600)


def hold_the_interpreter(channel: Channel) -> None:
    """Backtrack for years, in C, without giving any other thread a turn."""
    re.match("(a+)+b", "a" * 60)


def allocate(megabytes: int, channel: Channel) -> None:
    memory = [bytes(1 << 20) for _ in range(megabytes)]
    channel.send(len(memory))


def crash(channel: Channel) -> None:
    ctypes.string_at(0)


def kill_itself(channel: Channel) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(channel: Channel) -> None:
    raise FetchFailure(ErrorCategory.NETWORK, "No.", transient=True)


def break_down(channel: Channel) -> None:
    raise KeyError("s3cret")


def flood(channel: Channel) -> None:
    channel.send("x" * (8 << 20))


def failure_of(task: Task, seconds: float = inf) -> FetchFailure:
    process = TaskProcess(task, Limits(None, time.monotonic() + seconds, seconds), MEMORY)
    try:
        with pytest.raises(FetchFailure) as failed:
            process.wait()
        return failed.value
    finally:
        process.close()
        process.close()


def test_a_task_replies_to_requests_and_ends_when_it_is_closed() -> None:
    process = TaskProcess(echo, Limits(None, inf), MEMORY)
    assert [process.request(message) for message in (1, "ä", {"a": [None]})] == [1, "ä", {"a": [None]}]
    process.close()
    assert (process.peak_bytes or 0) > 1_000_000


def test_a_task_that_never_checks_the_deadline_is_killed_at_it() -> None:
    failed = failure_of(hold_the_interpreter, seconds=1)
    assert (failed.category, failed.transient) == (ErrorCategory.SOURCE, True)
    assert failed.sentence == "The source was not read within the 1 s that timeout_seconds allows."


def test_a_deadline_that_is_moved_ends_a_task_that_runs() -> None:
    limits = Limits(None, inf, 5)
    process = TaskProcess(report_pid, limits, MEMORY)
    pid = process.request(None)
    limits.deadline = -inf
    with pytest.raises(FetchFailure):
        process.wait()
    assert not psutil.pid_exists(pid)
    process.close()


def test_a_task_gets_its_memory_and_no_more() -> None:
    process = TaskProcess(partial(allocate, 150), Limits(None, inf), MEMORY)
    process.wait()
    process.close()
    failed = failure_of(partial(allocate, 300))
    assert (failed.category, failed.transient) == (ErrorCategory.SOURCE, False)
    assert "needs more than the 200,000,000 bytes of memory that SPINE_READ_MEMORY_BYTES allows" in failed.sentence


@pytest.mark.parametrize(
    ("task", "category", "transient", "sentence"),
    [
        (crash, ErrorCategory.SOURCE, False, "has crashed"),
        (kill_itself, ErrorCategory.SOURCE, True, "was killed"),
        (fail, ErrorCategory.NETWORK, True, "No."),
        (break_down, ErrorCategory.INTERNAL, False, "Internal error: KeyError."),
        (flood, ErrorCategory.SOURCE, True, "was killed"),
    ],
)
def test_every_end_of_a_task_is_a_failure_that_says_why(
    task: Task, category: ErrorCategory, transient: bool, sentence: str
) -> None:
    failed = failure_of(task)
    assert (failed.category, failed.transient) == (category, transient)
    assert sentence in failed.sentence
    assert "s3cret" not in failed.sentence


def test_tasks_run_at_once_and_the_end_of_one_leaves_the_others() -> None:
    one, other = (TaskProcess(echo, Limits(None, inf), MEMORY) for _ in range(2))
    assert (one.request(1), other.request(2)) == (1, 2)
    one.close()
    assert other.request(3) == 3
    other.close()


def test_a_fork_server_that_is_killed_is_replaced() -> None:
    process = TaskProcess(report_pid, Limits(None, inf), MEMORY)
    pid = process.request(None)
    os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
    with pytest.raises(FetchFailure, match="was killed"):
        process.wait()
    process.close()
    again = TaskProcess(echo, Limits(None, inf), MEMORY)
    assert again.request(1) == 1
    again.close()


def test_a_server_that_is_forked_ahead_serves_as_well(tmp_path: Path) -> None:
    script = (
        "import os, psutil\n"
        "from math import inf\n"
        "from spine.egress.limits import Limits\n"
        "from spine.sources.isolation import processes\n"
        "from tests.sources.test_isolation import MEMORY, echo, report_pid\n"
        "processes.fork_ahead()\n"
        "task = processes.TaskProcess(report_pid, Limits(None, inf), MEMORY)\n"
        "server = psutil.Process(task.request(None)).parent()\n"
        "print(server.ppid() == os.getpid(), server.cmdline() == psutil.Process().cmdline(), server.num_fds())\n"
        "task.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    # It is a copy of this process, and has only its socket besides the standard streams.
    assert done.stdout.split() == ["True", "True", "4"]


def test_processes_end_with_the_one_that_they_belong_to() -> None:
    script = (
        "import time\n"
        "from math import inf\n"
        "from spine.egress.limits import Limits\n"
        "from spine.sources.isolation.processes import TaskProcess\n"
        "from tests.sources.test_isolation import MEMORY, report_pid\n"
        "print(TaskProcess(report_pid, Limits(None, inf), MEMORY).request(None), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        task = psutil.Process(int(owner.stdout.readline()))
        server = task.parent()
        assert server is not None
        owner.kill()
    wait_until(lambda: not (task.is_running() or server.is_running()), "the processes to end", 10)


def test_a_forked_process_starts_a_server_of_its_own() -> None:
    process = TaskProcess(echo, Limits(None, inf), MEMORY)
    try:
        assert processes._server is not None
        before = processes._server.owner
        processes._server.owner = -1
        other = TaskProcess(echo, Limits(None, inf), MEMORY)
        assert other.request(1) == 1
        assert processes._server.owner == before
        other.close()
        assert process.request(2) == 2
    finally:
        process.close()
