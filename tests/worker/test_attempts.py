"""Attempts at runs that end otherwise than by themselves, and what that leaves to other runs and attempts.

The worker asks for work every ten minutes only: whatever begins here does so because the worker was woken.
"""

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from uuid import UUID

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine_worker.execution import SharedContext

from tests.support.processes import wait_until
from tests.support.stack import PrefectStack
from tests.worker.pool import Pool, edit, served_pool, serving

FLOWS = ["lasts", "lingers", "goes_on", "hears_nothing"]


@pytest.fixture(scope="module")
def pool(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A pool with a worker of ours that is told of work and hardly asks for it."""
    folder = tmp_path_factory.mktemp("attempts") / "spine"
    environment = {"PREFECT_WORKER_QUERY_SECONDS": "600", "SPINE_WORKER_GRACE_SECONDS": "3"}
    with served_pool("spine", stack, folder, **environment) as served:
        served.deploy(*(f"attempts.py:{name}" for name in FLOWS))
        yield served


def test_a_run_begins_at_once_though_the_worker_hardly_asks_for_work(pool: Pool) -> None:
    pool.run("lasts", seconds=0)
    began = time.time()
    assert pool.run("lasts", seconds=0).fact["begins"] - began < 5


def test_a_new_version_of_a_deployment_has_an_interpreter_of_its_own(pool: Pool) -> None:
    first, second = (pool.run("lasts", seconds=0).fact["parent"] for _ in range(2))
    pool.deploy("attempts.py:lasts", version="another")
    assert first == second != pool.run("lasts", seconds=0).fact["parent"]


def test_code_that_is_fetched_for_each_run_is_started_as_by_prefect_and_the_log_says_why(
    pool: Pool,
) -> None:
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "Flows"]):
        subprocess.run([*git, *arguments], cwd=pool.project, check=True)
    clone = {"prefect.deployments.steps.git_clone": {"repository": str(pool.project), "branch": "main"}}
    pool.deploy("warm.py:warm", pull=[clone])
    run = pool.run("warm")
    reason = "Starting in a new interpreter: its pull steps do more than set the working directory."
    wait_until(lambda: reason in run.logged(), "the reason in the log", 20)


def test_a_run_that_is_deleted_while_it_is_cancelled_ends_alone(pool: Pool) -> None:
    deleted, other = pool.start("lasts"), pool.start("lasts", seconds=8)
    pid = deleted.fact["pid"]
    assert other.fact
    # The worker is to hear of it when it is too late.
    pool.worker.suspend()
    deleted.set_state("CANCELLING")
    pool.stack.delete(f"/flow_runs/{deleted.id}")
    pool.worker.resume()
    wait_until(lambda: not psutil.pid_exists(pid), "the process to end", 40)
    assert other.ended() == "COMPLETED"
    later = pool.start("lasts")
    assert later.fact
    later.set_state("CANCELLING")
    assert later.ended(20) == "CANCELLED"


async def test_cancellations_are_heard_of_after_the_server_has_closed_the_connection_in_order(pool: Pool) -> None:
    run = pool.start("lasts")
    assert run.fact
    with temporary_settings({PREFECT_API_URL: pool.stack.url}):
        async with SharedContext() as context:
            context.expect(UUID(run.id))
            events = context._observer._events_subscriber
            assert events is not None
            closed = events._websocket
            assert closed is not None
            await closed.close()
            await becomes(lambda: events._websocket not in (None, closed))
            await asyncio.sleep(1)
            run.set_state("CANCELLING")
            await becomes(lambda: UUID(run.id) in context._cancelled)
            assert context.is_live
            context.forget(UUID(run.id))


def test_a_run_that_is_retried_while_its_first_process_still_ends_is_a_run_like_any_other(pool: Pool) -> None:
    runs = [pool.start("lingers"), pool.start("lingers", seconds=600)]
    for run in runs:
        assert run.ended() == "FAILED"
        run.set_state("SCHEDULED", "AwaitingRetry", force=True)
    wait_until(lambda: all(len(run.told) == 2 for run in runs), "the second attempts", 20)
    assert all(psutil.pid_exists(run.fact["pid"]) for run in runs)
    for run in runs:
        run.path.with_suffix(".end").touch()
    wait_until(lambda: not any(psutil.pid_exists(run.fact["pid"]) for run in runs), "the first processes to end", 20)
    assert runs[0].ended() == "COMPLETED"
    assert runs[1].state["type"] == "RUNNING"
    runs[1].set_state("CANCELLING")
    assert runs[1].ended(20) == "CANCELLED"
    wait_until(lambda: not psutil.pid_exists(runs[1].told[1]["pid"]), "the second process to end", 20)


def test_the_runs_of_a_worker_that_is_stopped_are_handed_back_and_the_next_one_goes_on(pool: Pool) -> None:
    begun = [pool.start("goes_on"), *(pool.start("hears_nothing", sleep=kind) for kind in ("PyDLL", "CDLL"))]
    wait_until(lambda: len(begun[0].told) == 2 and all(run.told for run in begun), "the runs to begin")
    (pool.project / "slow").touch()
    edit(pool.project / "attempts.py", "nothing at first", "nothing at last")
    taken = pool.start("lasts", seconds=0)
    taken.becomes("PENDING")
    pool.worker.terminate()
    assert pool.worker.wait(20) is not None
    assert [run.state["name"] for run in (*begun, taken)] == ["AwaitingRetry"] * 3 + ["Scheduled"]
    assert not any(psutil.pid_exists(run.fact["pid"]) for run in begun)
    (pool.project / "slow").unlink()
    with serving(pool):
        assert [run.ended() for run in (*begun, taken)] == ["COMPLETED"] * 4
    assert [(fact["attempt"], fact["step"]) for fact in begun[0].told] == [(1, "remember"), (1, "sleep"), (2, "end")]
    assert [fact["attempt"] for run in begun[1:] for fact in run.told] == [1, 2, 1, 2]


def test_a_stopped_worker_lets_its_runs_crash_where_the_operator_wants_that(pool: Pool) -> None:
    pool.environment["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] = "crash"
    with serving(pool):
        runs = [pool.start("goes_on"), pool.start("hears_nothing")]
        assert all(run.fact for run in runs)
        pool.worker.terminate()
        pool.worker.wait(20)
    assert [run.state["type"] for run in runs] == ["CRASHED"] * 2


async def becomes(condition: Callable[[], bool]) -> None:
    """Wait without keeping others from their work."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
