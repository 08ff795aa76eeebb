"""Which runs are set to Crashed when a worker is found dead, against a real Prefect server."""

import os
import subprocess
import sys
from typing import Any
from uuid import uuid4

import pytest
from spine.up.plan import WorkerType
from spine.up.prefect_setup import WORKER_LABEL, crash_interrupted_runs, ensure_work_pool
from spine.up.processes import FLOW_RUN_ID
from spine.up.waiting import UpError

from tests.support.processes import free_port
from tests.support.stack import PrefectStack


class Pool:
    """A work pool of its own, and runs in it that no worker will ever touch."""

    def __init__(self, stack: PrefectStack) -> None:
        self.name = f"pool-{uuid4().hex[:8]}"
        self._stack = stack
        assert ensure_work_pool(stack.url, self.name, WorkerType.SPINE) == f"{self.name} (created)"
        self._flow = stack.post("/flows/", {"name": "interrupted"})["id"]

    def run(self, state: str, worker: str | None, **more: Any) -> str:
        """A run in `state` that `worker` has labelled as its own."""
        labels = {WORKER_LABEL: worker} if worker else {}
        body = {"flow_id": self._flow, "state": {"type": state}, "work_pool_name": self.name, "labels": labels, **more}
        run: str = self._stack.post("/flow_runs/", body)["id"]
        return run

    def knows(self, worker: str) -> None:
        """Let a worker report."""
        self._stack.post(f"/work_pools/{self.name}/workers/heartbeat", {"name": worker})

    def crash(self, worker: str) -> int:
        """Set what `worker` left open to Crashed; tells how many runs."""
        return len(crash_interrupted_runs(self._stack.url, self.name, worker))

    def state(self, run: str) -> str:
        """The state of a run."""
        return str(self._stack.get(f"/flow_runs/{run}")["state_type"])


@pytest.fixture
def pool(stack: PrefectStack) -> Pool:
    return Pool(stack)


def test_open_runs_of_the_worker_crash_and_say_why(pool: Pool, stack: PrefectStack) -> None:
    runs = [pool.run("RUNNING", "mine"), pool.run("PENDING", "mine")]
    assert pool.crash("mine") == 2
    assert [pool.state(run) for run in runs] == ["CRASHED", "CRASHED"]
    assert "worker was stopped or killed" in stack.get(f"/flow_runs/{runs[0]}")["state"]["message"]
    assert pool.crash("mine") == 0


def test_runs_of_other_workers_and_pools_and_other_states_are_left_alone(pool: Pool, stack: PrefectStack) -> None:
    foreign = pool.run("RUNNING", "theirs")
    elsewhere = Pool(stack).run("RUNNING", "mine")
    planned, done = pool.run("SCHEDULED", "mine"), pool.run("COMPLETED", "mine")
    assert pool.crash("mine") == 0
    assert [pool.state(run) for run in (foreign, elsewhere, planned, done)] == [
        "RUNNING",
        "RUNNING",
        "SCHEDULED",
        "COMPLETED",
    ]


def test_a_run_taken_but_not_yet_labelled_is_ours_only_if_no_other_worker_exists(pool: Pool) -> None:
    pool.knows("mine")
    alone = pool.run("PENDING", None)
    assert pool.crash("mine") == 1
    assert pool.state(alone) == "CRASHED"
    pool.knows("theirs")
    shared = pool.run("PENDING", None)
    assert pool.crash("mine") == 0
    assert pool.state(shared) == "PENDING"


def test_subflow_runs_end_with_the_run_whose_process_they_ran_in(pool: Pool, stack: PrefectStack) -> None:
    parent = pool.run("RUNNING", "mine")
    step = stack.post("/task_runs/", {"flow_run_id": parent, "task_key": "child", "dynamic_key": "0"})["id"]
    child = pool.run("RUNNING", None, parent_task_run_id=step, work_pool_name=None)
    assert pool.crash("mine") == 2
    assert pool.state(child) == "CRASHED"


def test_a_run_whose_process_lives_is_left_alone(pool: Pool) -> None:
    run = pool.run("RUNNING", "mine")
    sleep = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    with subprocess.Popen(sleep, env={**os.environ, FLOW_RUN_ID: run}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert pool.crash("mine") == 0
        process.kill()
    assert pool.crash("mine") == 1


def test_an_existing_pool_is_kept_as_it_is(pool: Pool, stack: PrefectStack) -> None:
    stack.http.patch(f"{stack.url}/work_pools/{pool.name}", json={"concurrency_limit": 3}).raise_for_status()
    before = stack.get(f"/work_pools/{pool.name}")
    for worker in WorkerType:
        assert ensure_work_pool(stack.url, pool.name, worker) == f"{pool.name} (existing)"
    assert stack.get(f"/work_pools/{pool.name}") == before


def test_a_pool_that_no_worker_of_this_machine_serves_is_refused(stack: PrefectStack) -> None:
    name = f"pool-{uuid4().hex[:8]}"
    stack.post("/work_pools/", {"name": name, "type": "kubernetes"})
    with pytest.raises(UpError, match="kubernetes"):
        ensure_work_pool(stack.url, name, WorkerType.SPINE)


def test_prefect_out_of_reach_is_a_sentence() -> None:
    with pytest.raises(UpError, match="could not be used"):
        crash_interrupted_runs(f"http://127.0.0.1:{free_port()}/api", "spine", "mine")
