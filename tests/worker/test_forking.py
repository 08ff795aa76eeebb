"""What is special about runs that are forked from warm interpreters: they start at once and share nothing."""

import gzip
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.support.processes import wait_until
from tests.support.stack import PrefectStack
from tests.worker.pool import Pool, edit, served_pool

pytestmark = pytest.mark.slow

AT_ONCE = 40


@pytest.fixture(scope="module")
def pool(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A pool with a spine worker, which may write bytecode even if this process may not."""
    stack = replace(stack, environment={**stack.environment, "PYTHONDONTWRITEBYTECODE": ""})
    with served_pool("spine", stack, tmp_path_factory.mktemp("forking") / "spine") as served:
        served.deploy("warm.py:warm", "side_effects.py:side_effects", "behaviour.py:sleeps")
        yield served


def test_runs_are_forked_from_one_interpreter_and_share_nothing(pool: Pool) -> None:
    first, second = (pool.run("warm").fact for _ in range(2))
    assert first["parent"] == second["parent"] != pool.worker.pid
    assert first["pid"] != second["pid"]
    assert [one["seen"] for one in (first, second)] == [1, 1]
    assert first["random"] != second["random"]
    assert (second["left"], second["modules"]) == (None, False)
    assert second["set_by_import"] == "yes"


@pytest.mark.parametrize(("file", "fact"), [("warm.py", "value"), ("helper.py", "helper")])
def test_a_run_that_is_triggered_after_an_edit_executes_the_edited_code(pool: Pool, file: str, fact: str) -> None:
    before = pool.run("warm").fact
    edit(pool.project / file, "VALUE = 1", "VALUE = 2")
    after = pool.run("warm").fact
    assert (before[fact], after[fact]) == (1, 2)
    edit(pool.project / file, "VALUE = 2", "VALUE = 1")
    assert pool.run("warm").fact[fact] == 1


def test_a_run_never_executes_code_that_is_older_than_its_trigger(pool: Pool) -> None:
    for value in range(2, 8):
        edit(pool.project / "helper.py", f"VALUE = {value - 1}", f"VALUE = {value}")
        runs = [pool.start("warm") for _ in range(2)]
        assert [run.ended() for run in runs] == ["COMPLETED"] * 2
        assert [run.fact["helper"] for run in runs] == [value] * 2
    edit(pool.project / "helper.py", "VALUE = 7", "VALUE = 1")


def test_the_buffers_of_open_files_are_written_when_a_run_ends(pool: Pool) -> None:
    run = pool.run("warm")
    wait_until(lambda: not psutil.pid_exists(run.fact["pid"]), "the process of the run to end", 60)
    text, compressed = (Path(f"{run.path}.{name}").read_bytes() for name in ("text", "gzip"))
    assert text == gzip.decompress(compressed) == b"kept"


def sockets(pid: int) -> set[str]:
    """The open sockets of a process."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(descriptor))
        except FileNotFoundError:
            continue
    return {one for one in found if one.startswith("socket:")}


def test_a_run_inherits_no_socket(pool: Pool) -> None:
    runs = [pool.start("warm", seconds=4) for _ in range(2)]
    pids = [run.fact["pid"] for run in runs]
    of_runs = [sockets(pid) for pid in pids]
    assert all(of_runs)
    assert not of_runs[0] & of_runs[1]
    servers = [one.pid for one in pool.worker.children(recursive=True) if one.pid not in pids]
    for other in (pool.worker.pid, *servers):
        assert not (of_runs[0] | of_runs[1]) & sockets(other)
    assert [run.ended() for run in runs] == ["COMPLETED"] * 2


def test_a_module_with_side_effects_is_imported_by_each_run(pool: Pool) -> None:
    first, second = (pool.run("side_effects").fact for _ in range(2))
    assert first["imported"] < second["imported"]
    assert [one["ticking"] for one in (first, second)] == [True, True]
    assert first["parent"] == second["parent"]
    assert "Each run of side_effects.py:side_effects imports its code again, because the import reads the clock"


def test_a_run_that_cannot_be_forked_starts_in_a_new_interpreter_and_the_log_says_why(pool: Pool) -> None:
    deployment = pool.deployment("warm")
    body = {
        "parameters": {"path": str(pool.folder / "command.jsonl")},
        "job_variables": {"command": f"{sys.executable} -m prefect.engine"},
    }
    made = pool.stack.post(f"/deployments/{deployment['id']}/create_flow_run", body)
    run = pool.of(made["id"], "command.jsonl")
    assert run.ended() == "COMPLETED"
    assert run.fact["seen"] == 1
    wait_until(
        lambda: "Starting in a new interpreter: it has a command of its own." in run.logged(),
        "the reason in the log",
        20,
    )


@pytest.mark.parametrize("generations", [1, 2], ids=["flow server", "engine server"])
def test_a_fork_server_that_is_killed_is_replaced_and_its_runs_end(pool: Pool, generations: int) -> None:
    lasting, ending = pool.start("sleeps"), pool.start("warm", seconds=2)
    server = psutil.Process(lasting.fact["pid"]).parent()
    assert ending.fact
    for _ in range(generations - 1):
        server = server.parent() if server else None
    assert server is not None
    assert server.pid != pool.worker.pid
    server.kill()
    assert ending.ended() in ("COMPLETED", "CRASHED")
    assert pool.run("warm").fact["parent"] != server.pid
    os.kill(lasting.fact["pid"], signal.SIGKILL)
    assert lasting.ended() == "CRASHED"


def test_many_runs_at_once_complete_and_leave_nothing_open(pool: Pool) -> None:
    parent = psutil.Process(pool.run("warm").fact["parent"])
    before = (parent.num_fds(), pool.worker.num_fds(), parent.memory_info().rss)
    runs = [pool.start("warm") for _ in range(AT_ONCE)]
    assert {run.ended(seconds=120) for run in runs} == {"COMPLETED"}
    assert {run.fact["parent"] for run in runs} == {parent.pid}
    assert len({run.fact["random"] for run in runs}) == AT_ONCE
    wait_until(lambda: parent.num_fds() <= before[0], "the fork server to close what it opened", 60)
    wait_until(lambda: pool.worker.num_fds() <= before[1] + 5, "the worker to close what it opened", 60)
    assert parent.memory_info().rss < before[2] + 2e6


def test_the_fork_servers_end_with_their_worker(pool: Pool) -> None:
    run = pool.start("sleeps")
    family = [psutil.Process(run.fact["pid"]), *pool.worker.children(recursive=True)]
    pool.worker.terminate()
    pool.worker.wait(60)
    assert run.becomes("SCHEDULED")
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive
