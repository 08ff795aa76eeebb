"""What a run can rely on with both workers, Prefect's process worker and ours: the same assertions for each."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.support.processes import wait_until
from tests.support.stack import PrefectStack
from tests.worker.observations import differences, in_new_interpreter, missing_modules
from tests.worker.pool import ENDED, Pool, Run, edit, served_pool

FLOWS = [
    "reports",
    "works_in_threads",
    "works_in_processes",
    "fails",
    "succeeds_on_third_try",
    "takes_too_long",
    "sleeps",
    "suspends",
]


@pytest.fixture(scope="module", params=["spine", pytest.param("process", marks=pytest.mark.slow)])
def pool(
    request: pytest.FixtureRequest, stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pool]:
    """A pool with a worker of either type."""
    with served_pool(request.param, stack, tmp_path_factory.mktemp("worker") / request.param) as served:
        served.deploy(
            *(f"behaviour.py:{name}" for name in FLOWS),
            *("launches.py:sleeps_for", "launches.py:ignores_sigterm", "warm.py:warm", "observes.py:observes"),
        )
        served.deploy("behaviour.py:takes_turns", concurrency_limit=1)
        yield served


@pytest.fixture(scope="module")
def runs(pool: Pool) -> dict[str, Run]:
    """One run of each flow, all started at once."""
    begun = {name: pool.start(name) for name in FLOWS if name != "reports"}
    begun["ignores_sigterm"] = pool.start("ignores_sigterm")
    begun["own variables"] = pool.start(
        "reports", {"env": {"MARK": "of the run"}, "stream_output": False}, word="bittern"
    )
    runs = {**begun, "reports": pool.start("reports", word="heron"), "killed": pool.start("sleeps")}
    # Its process is killed half a minute after this, which is as long as the other tests take.
    assert begun["ignores_sigterm"].fact
    begun["ignores_sigterm"].set_state("CANCELLING")
    return runs


def test_a_run_has_its_parameters_and_environment(pool: Pool, runs: dict[str, Run]) -> None:
    run = runs["reports"]
    assert run.ended() == "COMPLETED"
    fact = run.fact
    assert {name: fact[name] for name in ("word", "mark", "run_id", "is_current")} == {
        "word": "heron",
        "mark": pool.name,
        "run_id": run.id,
        "is_current": True,
    }


def test_the_variables_of_a_run_override_those_of_its_deployment_and_those_of_its_pool(
    pool: Pool, runs: dict[str, Run]
) -> None:
    run = runs["own variables"]
    assert run.ended() == "COMPLETED"
    assert (run.fact["pool"], run.fact["mark"]) == (pool.name, "of the run")
    assert (runs["reports"].fact["pool"], runs["reports"].fact["mark"]) == (pool.name, pool.name)
    # The deployment's pull step overrides the pool's working_dir.
    assert run.fact["cwd"] == str(pool.project)
    assert "printed: bittern" not in pool.log.read_text()


def test_a_run_is_a_process_of_its_own_in_the_project(pool: Pool, runs: dict[str, Run]) -> None:
    fact = runs["reports"].fact
    assert fact["cwd"] == fact["first_path"] == str(pool.project)
    assert fact["group"] == fact["pid"] != pool.worker.pid
    assert (fact["main"], fact["executable"]) == ("__main__", sys.executable)
    assert pool.stack.get(f"/flow_runs/{runs['reports'].id}")["infrastructure_pid"] == str(fact["pid"])
    wait_until(lambda: not psutil.pid_exists(fact["pid"]), "the process to end", 20)


def test_code_observes_what_it_does_in_a_new_interpreter(pool: Pool) -> None:
    fact = pool.run("observes").fact
    new = in_new_interpreter(pool, "observes", fact["run"]["environment"])
    assert differences(pool, fact, pool, new) == {}
    assert missing_modules(fact, new) == []


def test_what_a_run_logs_and_prints_can_be_read(pool: Pool, runs: dict[str, Run]) -> None:
    run = runs["reports"]
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


@pytest.mark.slow
def test_tasks_run_in_processes(runs: dict[str, Run]) -> None:
    assert runs["works_in_processes"].ended() == "COMPLETED"
    fact = runs["works_in_processes"].fact
    assert fact["results"] == [2, 4, 6]
    assert fact["pid"] not in fact["pids"]


def test_the_state_of_a_failed_run_has_the_message_of_its_exception(runs: dict[str, Run]) -> None:
    run = runs["fails"]
    assert run.ended() == "FAILED"
    assert f"LookupError: nothing at {run.path.name}" in run.state["message"]
    assert run.facts == [{"hook": "on_failure", "state": "FAILED"}]


def test_the_retries_of_a_run_are_in_the_same_process(runs: dict[str, Run]) -> None:
    run = runs["succeeds_on_third_try"]
    assert run.ended() == "COMPLETED"
    assert [fact["count"] for fact in run.facts] == [1, 2, 3]
    assert len({fact["pid"] for fact in run.facts}) == 1


def test_a_run_beyond_its_time_limit_fails(runs: dict[str, Run]) -> None:
    run = runs["takes_too_long"]
    assert run.ended() == "FAILED"
    assert run.state["name"] == "TimedOut"
    wait_until(lambda: not psutil.pid_exists(run.fact["pid"]), "the process to end", 20)


def test_a_run_sends_heartbeats(runs: dict[str, Run]) -> None:
    run = runs["sleeps"]
    assert run.fact
    wanted = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{run.id}"]}}
    wait_until(lambda: run.stack.post("/events/filter", {"filter": wanted})["total"] > 0, "a heartbeat", 30)


def test_a_run_that_is_triggered_after_an_edit_executes_the_edited_code(pool: Pool) -> None:
    before = pool.run("warm").fact
    edit(pool.project / "helper.py", "VALUE = 1", "VALUE = 2")
    if pool.kind == "process":
        # Python itself takes the old bytecode as up to date.
        shutil.rmtree(pool.project / "__pycache__", ignore_errors=True)
    after = pool.run("warm").fact
    assert (before["helper"], after["helper"]) == (1, 2)
    # It shares nothing with the run before it.
    assert before["pid"] != after["pid"]
    assert (after["seen"], after["left"], after["modules"]) == (1, None, False)
    assert before["random"] != after["random"]


@pytest.mark.slow
def test_a_run_that_sleeps_in_c_code_is_cancelled(runs: dict[str, Run]) -> None:
    run = runs["sleeps"]
    pid = run.fact["pid"]
    run.set_state("CANCELLING")
    assert run.ended() == "CANCELLED"
    wait_until(lambda: not psutil.pid_exists(pid), "the process to end", 20)
    wait_until(lambda: len(run.facts) > 1, "the hook", 30)
    assert run.facts[1]["hook"] == "on_cancellation"


def test_a_run_that_is_killed_has_crashed(runs: dict[str, Run]) -> None:
    run = runs["killed"]
    os.kill(run.fact["pid"], signal.SIGKILL)
    assert run.ended() == "CRASHED"
    assert "-9" in run.state["message"]
    wait_until(lambda: len(run.facts) > 1, "the hook", 30)
    assert run.facts[1:] == [{"hook": "on_crashed", "state": "CRASHED"}]


def test_a_suspended_run_continues_in_another_process_when_it_is_resumed(runs: dict[str, Run]) -> None:
    run = runs["suspends"]
    run.becomes("PAUSED")
    pid = run.fact["pid"]
    wait_until(lambda: not psutil.pid_exists(pid), "the process to end", 20)
    run.stack.post(f"/flow_runs/{run.id}/resume")
    assert run.ended() == "COMPLETED"
    wait_until(lambda: len(run.facts) == 4, "the hook", 20)
    assert run.facts[2]["resumed"] not in (pid, None)
    assert run.facts[3] == {"hook": "on_completion", "state": "COMPLETED"}


@pytest.mark.slow
def test_the_concurrency_limit_of_a_deployment_is_kept(pool: Pool) -> None:
    both = [pool.start("takes_turns") for _ in range(2)]
    assert [run.ended() for run in both] == ["COMPLETED", "COMPLETED"]
    first, second = sorted((run.facts for run in both), key=lambda facts: facts[0]["begins"])
    assert first[1]["ends"] < second[0]["begins"]


@pytest.mark.slow
def test_a_run_that_never_returns_from_c_code_is_cancelled(runs: dict[str, Run]) -> None:
    run = runs["ignores_sigterm"]
    assert run.ended() == "CANCELLED"
    # Prefect's server sets the state before the worker kills the process.
    wait_until(lambda: not psutil.pid_exists(run.fact["pid"]), "the process to end", 40)
    assert len(run.facts) == 1


@pytest.mark.slow
@pytest.mark.parametrize("limited", ["", "/queues/default"], ids=["pool", "queue"])
def test_the_concurrency_limits_of_a_pool_and_of_a_queue_are_kept(
    pool: Pool, runs: dict[str, Run], limited: str
) -> None:
    for run in runs.values():
        if run.state["type"] not in ENDED:
            run.set_state("CANCELLING")
            run.ended()
    path = f"/work_pools/{pool.name}{limited}"
    pool.stack.patch(path, {"concurrency_limit": 1})
    both = [pool.start("sleeps_for", seconds=1) for _ in range(2)]
    assert [run.ended() for run in both] == ["COMPLETED", "COMPLETED"]
    first, second = sorted((run.facts for run in both), key=lambda facts: facts[0]["begins"])
    assert first[1]["ends"] < second[0]["begins"]
    pool.stack.patch(path, {"concurrency_limit": None})


def test_a_worker_that_is_stopped_leaves_no_process(pool: Pool) -> None:
    run = pool.start("sleeps")
    pid = run.fact["pid"]
    pool.worker.terminate()
    assert pool.worker.wait(60) is not None
    wait_until(lambda: not psutil.pid_exists(pid), "the process to end", 20)
