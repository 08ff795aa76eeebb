"""What a run can rely on whichever worker carries it out: Prefect's own and ours, with the same assertions."""

import os
import signal
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.support.processes import wait_until
from tests.support.stack import PrefectStack
from tests.worker.pool import ENDED, Pool, Run, served_pool

FLOWS = [
    "tells",
    "works_in_threads",
    "works_in_processes",
    "fails",
    "succeeds_at_last",
    "takes_too_long",
    "sleeps",
    "suspends",
]


@pytest.fixture(scope="module", params=["spine", "process"])
def pool(
    request: pytest.FixtureRequest, stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pool]:
    """A pool with a worker of either type."""
    with served_pool(request.param, stack, tmp_path_factory.mktemp("worker") / request.param) as served:
        served.deploy(*(f"behaviour.py:{name}" for name in FLOWS), "attempts.py:lasts", "attempts.py:hears_nothing")
        served.deploy("behaviour.py:takes_turns", concurrency_limit=1)
        yield served


@pytest.fixture(scope="module")
def runs(pool: Pool) -> dict[str, Run]:
    """One run of each flow, begun at once."""
    begun = {name: pool.start(name) for name in FLOWS if name != "tells"}
    begun["hears_nothing"] = pool.start("hears_nothing")
    begun["of its own"] = pool.start("tells", {"env": {"MARK": "of the run"}, "stream_output": False}, word="bittern")
    runs = {**begun, "tells": pool.start("tells", word="heron"), "killed": pool.start("sleeps")}
    # It has the half minute of patience that a cancelled run has; what else there is to be seen takes as long.
    assert begun["hears_nothing"].fact
    begun["hears_nothing"].set_state("CANCELLING")
    return runs


def test_a_run_has_its_parameters_and_environment(pool: Pool, runs: dict[str, Run]) -> None:
    run = runs["tells"]
    assert run.ended() == "COMPLETED"
    fact = run.fact
    assert {name: fact[name] for name in ("word", "mark", "run_id", "is_current")} == {
        "word": "heron",
        "mark": pool.name,
        "run_id": run.id,
        "is_current": True,
    }


def test_a_run_has_the_variables_of_its_pool_below_those_of_its_deployment_and_its_own(
    pool: Pool, runs: dict[str, Run]
) -> None:
    run = runs["of its own"]
    assert run.ended() == "COMPLETED"
    assert (run.fact["pool"], run.fact["mark"]) == (pool.name, "of the run")
    assert (runs["tells"].fact["pool"], runs["tells"].fact["mark"]) == (pool.name, pool.name)
    # The pool's working directory is where its code is looked for, and the deployment says where that is.
    assert run.fact["cwd"] == str(pool.project)
    assert "printed: bittern" not in pool.log.read_text()


def test_a_run_is_a_process_of_its_own_in_the_project(pool: Pool, runs: dict[str, Run]) -> None:
    fact = runs["tells"].fact
    assert fact["cwd"] == fact["first_path"] == str(pool.project)
    assert fact["group"] == fact["pid"] != pool.worker.pid
    assert (fact["main"], fact["executable"]) == ("__main__", sys.executable)
    assert pool.stack.get(f"/flow_runs/{runs['tells'].id}")["infrastructure_pid"] == str(fact["pid"])
    wait_until(lambda: not psutil.pid_exists(fact["pid"]), "the process to end", 20)


def test_what_a_run_logs_and_prints_is_seen(pool: Pool, runs: dict[str, Run]) -> None:
    run = runs["tells"]
    run.ended()
    wait_until(lambda: "The word is heron." in run.logged(), "the log", 20)
    assert "Finished in state Completed()" in run.logged()
    wait_until(lambda: "printed: heron" in pool.log.read_text(), "what was printed", 20)


def test_tasks_run_in_threads_and_subflows_in_the_same_process(runs: dict[str, Run]) -> None:
    assert runs["works_in_threads"].ended() == "COMPLETED"
    fact = runs["works_in_threads"].fact
    assert fact["results"] == [2, 4, 6]
    assert set(fact["pids"]) == {fact["pid"]}
    assert fact["child"] == 42


def test_tasks_run_in_processes(runs: dict[str, Run]) -> None:
    assert runs["works_in_processes"].ended() == "COMPLETED"
    fact = runs["works_in_processes"].fact
    assert fact["results"] == [2, 4, 6]
    assert fact["pid"] not in fact["pids"]


def test_a_failure_is_told_in_its_own_words(runs: dict[str, Run]) -> None:
    run = runs["fails"]
    assert run.ended() == "FAILED"
    assert f"LookupError: nothing at {run.path.name}" in run.state["message"]
    assert run.told == [{"hook": "on_failure", "state": "FAILED"}]


def test_a_run_is_retried_in_its_process(runs: dict[str, Run]) -> None:
    run = runs["succeeds_at_last"]
    assert run.ended() == "COMPLETED"
    assert [fact["count"] for fact in run.told] == [1, 2, 3]
    assert len({fact["pid"] for fact in run.told}) == 1


def test_a_run_beyond_its_time_limit_fails(runs: dict[str, Run]) -> None:
    run = runs["takes_too_long"]
    assert run.ended() == "FAILED"
    assert run.state["name"] == "TimedOut"
    wait_until(lambda: not psutil.pid_exists(run.fact["pid"]), "the process to end", 20)


def test_a_run_tells_that_it_is_alive(runs: dict[str, Run]) -> None:
    run = runs["sleeps"]
    assert run.fact
    wanted = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{run.id}"]}}
    wait_until(lambda: run.stack.post("/events/filter", {"filter": wanted})["total"] > 0, "a heartbeat", 30)


def test_a_run_that_sleeps_in_c_code_is_cancelled(runs: dict[str, Run]) -> None:
    run = runs["sleeps"]
    pid = run.fact["pid"]
    run.set_state("CANCELLING")
    assert run.ended() == "CANCELLED"
    wait_until(lambda: not psutil.pid_exists(pid), "the process to end", 20)
    wait_until(lambda: len(run.told) > 1, "the hook", 30)
    assert run.told[1]["hook"] == "on_cancellation"


def test_a_run_that_is_killed_has_crashed(runs: dict[str, Run]) -> None:
    run = runs["killed"]
    os.kill(run.fact["pid"], signal.SIGKILL)
    assert run.ended() == "CRASHED"
    assert "-9" in run.state["message"]
    wait_until(lambda: len(run.told) > 1, "the hook", 30)
    assert run.told[1:] == [{"hook": "on_crashed", "state": "CRASHED"}]


def test_a_suspended_run_goes_on_in_another_process_when_it_is_resumed(runs: dict[str, Run]) -> None:
    run = runs["suspends"]
    run.becomes("PAUSED")
    pid = run.fact["pid"]
    wait_until(lambda: not psutil.pid_exists(pid), "the process to end", 20)
    run.stack.post(f"/flow_runs/{run.id}/resume")
    assert run.ended() == "COMPLETED"
    wait_until(lambda: len(run.told) == 4, "the hook", 20)
    assert run.told[2]["resumed"] not in (pid, None)
    assert run.told[3] == {"hook": "on_completion", "state": "COMPLETED"}


def test_a_deployments_limit_of_runs_at_once_holds(pool: Pool) -> None:
    both = [pool.start("takes_turns") for _ in range(2)]
    assert [run.ended() for run in both] == ["COMPLETED", "COMPLETED"]
    first, second = sorted((run.told for run in both), key=lambda told: told[0]["begins"])
    assert first[1]["ends"] < second[0]["begins"]


def test_a_run_that_never_comes_back_from_c_code_is_cancelled(runs: dict[str, Run]) -> None:
    run = runs["hears_nothing"]
    assert run.ended() == "CANCELLED"
    # Prefect's server calls it cancelled before the worker's patience is over.
    wait_until(lambda: not psutil.pid_exists(run.fact["pid"]), "the process to end", 40)
    assert len(run.told) == 1


@pytest.mark.parametrize("limited", ["", "/queues/default"], ids=["pool", "queue"])
def test_the_limit_of_runs_at_once_of_a_pool_and_of_a_queue_holds(
    pool: Pool, runs: dict[str, Run], limited: str
) -> None:
    for run in runs.values():
        if run.state["type"] not in ENDED:
            run.set_state("CANCELLING")
            run.ended()
    path = f"/work_pools/{pool.name}{limited}"
    pool.stack.patch(path, {"concurrency_limit": 1})
    both = [pool.start("lasts", seconds=1) for _ in range(2)]
    assert [run.ended() for run in both] == ["COMPLETED", "COMPLETED"]
    first, second = sorted((run.told for run in both), key=lambda told: told[0]["begins"])
    assert first[1]["ends"] < second[0]["begins"]
    pool.stack.patch(path, {"concurrency_limit": None})


def test_a_worker_that_is_stopped_leaves_no_process(pool: Pool) -> None:
    run = pool.start("sleeps")
    pid = run.fact["pid"]
    pool.worker.terminate()
    assert pool.worker.wait(60) is not None
    wait_until(lambda: not psutil.pid_exists(pid), "the process to end", 20)
