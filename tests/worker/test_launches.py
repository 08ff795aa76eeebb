"""Runs that do not end by themselves, and what they leave to other runs and to their next attempts.

The worker polls only every ten minutes: whatever starts here starts because an event has woken the worker.
"""

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine_worker.execution import SharedContext, SharedExecution
from websockets.asyncio.client import ClientConnection
from websockets.protocol import State as ConnectionState

from tests.support.processes import running_program, wait_until
from tests.support.stack import PrefectStack
from tests.worker.pool import Pool, edit, served_pool, serving

pytestmark = pytest.mark.slow

FLOWS = ["sleeps_for", "exits_late", "continues", "ignores_sigterm"]


@pytest.fixture(scope="module")
def pool(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A pool with a spine worker that events wake and that hardly polls."""
    folder = tmp_path_factory.mktemp("launches") / "spine"
    environment = {"PREFECT_WORKER_QUERY_SECONDS": "600", "SPINE_WORKER_GRACE_SECONDS": "3"}
    with served_pool("spine", stack, folder, **environment) as served:
        served.deploy(*(f"launches.py:{name}" for name in FLOWS))
        yield served


def test_a_run_starts_at_once_although_the_worker_hardly_polls(pool: Pool) -> None:
    pool.run("sleeps_for", seconds=0)
    began = time.time()
    # By polling alone the worker would find it after up to 600 s.
    assert pool.run("sleeps_for", seconds=0).fact["begins"] - began < 60


def test_a_new_version_of_a_deployment_gets_an_interpreter_of_its_own(pool: Pool) -> None:
    first, second = (pool.run("sleeps_for", seconds=0).fact["parent"] for _ in range(2))
    pool.deploy("launches.py:sleeps_for", version="another")
    assert first == second != pool.run("sleeps_for", seconds=0).fact["parent"]


def test_code_that_is_cloned_for_each_run_starts_in_a_new_interpreter_and_the_log_says_why(pool: Pool) -> None:
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "Flows"]):
        subprocess.run([*git, *arguments], cwd=pool.project, check=True)
    clone = {"prefect.deployments.steps.git_clone": {"repository": str(pool.project), "branch": "main"}}
    pool.deploy("warm.py:warm", pull=[clone])
    run = pool.run("warm")
    reason = "Starting in a new interpreter: its pull steps do more than set the working directory."
    wait_until(lambda: reason in run.logged(), "the reason in the log", 20)


def test_a_run_that_is_deleted_while_it_is_cancelled_ends_no_other_run(pool: Pool) -> None:
    deleted, other = pool.start("sleeps_for"), pool.start("sleeps_for", seconds=8)
    pid = deleted.fact["pid"]
    assert other.fact
    # The worker must learn of the cancellation after the run is deleted.
    pool.worker.suspend()
    deleted.set_state("CANCELLING")
    pool.stack.delete(f"/flow_runs/{deleted.id}")
    pool.worker.resume()
    wait_until(lambda: not psutil.pid_exists(pid), "the process to end", 40)
    assert other.ended() == "COMPLETED"
    later = pool.start("sleeps_for")
    assert later.fact
    later.set_state("CANCELLING")
    assert later.ended(20) == "CANCELLED"


async def test_cancellations_still_arrive_after_the_server_has_closed_the_connection_cleanly(pool: Pool) -> None:
    run = pool.start("sleeps_for")
    assert run.fact
    with temporary_settings({PREFECT_API_URL: pool.stack.url}):
        others = open_connections()
        async with SharedContext() as context:
            context.expect(UUID(run.id))
            await becomes(lambda: bool(open_connections() - others))
            (closed,) = open_connections() - others
            await closed.close()
            await becomes(lambda: bool(open_connections() - others))
            await asyncio.sleep(1)
            run.set_state("CANCELLING")
            await becomes(lambda: UUID(run.id) in context._cancelled)
            assert context.is_live
            context.forget(UUID(run.id))


async def test_no_further_run_gets_a_context_that_sees_no_more_cancellations(pool: Pool) -> None:
    execution = SharedExecution()
    with temporary_settings({PREFECT_API_URL: pool.stack.url}):
        try:
            async with await execution.context(uuid4()) as first:
                assert first._observer.on_failure is not None
                first._observer.on_failure(set())
                async with await execution.context(uuid4()) as second:
                    assert second is not first
                    assert second.is_live
        finally:
            await execution.close()


def test_a_run_can_be_retried_before_the_process_of_its_first_attempt_has_ended(pool: Pool) -> None:
    runs = [pool.start("exits_late"), pool.start("exits_late", seconds=600)]
    for run in runs:
        assert run.ended() == "FAILED"
        run.set_state("SCHEDULED", "AwaitingRetry", force=True)
    wait_until(lambda: all(len(run.facts) == 2 for run in runs), "the second attempts", 20)
    assert all(psutil.pid_exists(run.fact["pid"]) for run in runs)
    for run in runs:
        run.path.with_suffix(".end").touch()
    wait_until(lambda: not any(psutil.pid_exists(run.fact["pid"]) for run in runs), "the first processes to end", 20)
    assert runs[0].ended() == "COMPLETED"
    assert runs[1].state["type"] == "RUNNING"
    runs[1].set_state("CANCELLING")
    assert runs[1].ended(20) == "CANCELLED"
    wait_until(lambda: not psutil.pid_exists(runs[1].facts[1]["pid"]), "the second process to end", 20)


def test_a_stopped_worker_reschedules_its_runs_and_the_next_worker_continues_them(pool: Pool) -> None:
    begun = [pool.start("continues"), *(pool.start("ignores_sigterm", sleep=kind) for kind in ("PyDLL", "CDLL"))]
    wait_until(lambda: len(begun[0].facts) == 2 and all(run.facts for run in begun), "the runs to begin")
    (pool.project / "slow").touch()
    edit(pool.project / "launches.py", "nothing at first", "nothing at last")
    claimed = pool.start("sleeps_for", seconds=0)
    claimed.becomes("PENDING")
    pool.worker.terminate()
    assert pool.worker.wait(20) is not None
    assert [run.state["name"] for run in (*begun, claimed)] == ["AwaitingRetry"] * 3 + ["Scheduled"]
    assert not any(psutil.pid_exists(run.fact["pid"]) for run in begun)
    (pool.project / "slow").unlink()
    with serving(pool):
        assert [run.ended() for run in (*begun, claimed)] == ["COMPLETED"] * 4
    assert [(fact["attempt"], fact["step"]) for fact in begun[0].facts] == [(1, "first_step"), (1, "sleep"), (2, "end")]
    assert [fact["attempt"] for run in begun[1:] for fact in run.facts] == [1, 2, 1, 2]


def test_a_stopped_worker_lets_its_runs_crash_if_the_operator_has_configured_that(pool: Pool) -> None:
    pool.environment["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] = "crash"
    with serving(pool):
        runs = [pool.start("continues"), pool.start("ignores_sigterm")]
        assert all(run.fact for run in runs)
        pool.worker.terminate()
        pool.worker.wait(20)
    assert [run.state["type"] for run in runs] == ["CRASHED"] * 2


def test_a_worker_that_was_started_with_sigint_ignored_ends_after_one_sigterm(
    stack: PrefectStack, tmp_path: Path
) -> None:
    # As a shell starts a command with `&` in a script.
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    name = f"ignoring-{uuid4().hex[:8]}"
    stack.post("/work_pools/", {"name": name, "type": "spine"})
    command = [*ignoring, sys.executable, "-m", "prefect", "worker", "start", "--pool", name, "--type", "spine"]
    with running_program(command, stack.environment, tmp_path / "worker.log") as process:
        wait_until(lambda: bool(stack.post(f"/work_pools/{name}/workers/filter")), "the worker to report")
        process.terminate()
        assert process.wait(20) == 0, (tmp_path / "worker.log").read_text()


def open_connections() -> set[ClientConnection]:
    """The connections of this process over which Prefect's server sends events."""
    found = (one for one in gc.get_objects() if isinstance(one, ClientConnection))
    # Other connections send events.
    subscribed = (one for one in found if one.request is not None and one.request.path.endswith("/events/out"))
    return {one for one in subscribed if one.state is ConnectionState.OPEN}


async def becomes(condition: Callable[[], bool]) -> None:
    """Wait for a condition without blocking the event loop."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
