"""A worker whose own way to start runs fails, as after a change in Prefect: the runs go on, and readiness tells why."""

import asyncio
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.health_checks import _check_worker
from spine.prefect.client import Prefect

from tests.support.processes import wait_until
from tests.support.stack import PrefectStack
from tests.worker.pool import ENDED, served_pool

pytestmark = pytest.mark.slow

# What each breaks, as a new release of Prefect would, in the worker's process or in its warm interpreters.
BREAKS = {
    "a name is gone": "import prefect.runner._workspace_starter as m; del m.workspace_environment",
    "the worker's module fails": "import spine_worker.launches as m; del m.Launches",
    "before the fork": "import spine_worker.launches as m; m.workspace_of = lambda *_: 1 / 0",
    "before the start": "import spine_worker.starter as m; m.create_isolated_termination_scope = lambda pid: 1 / 0",
    "at the start": "import spine_worker.launches as m; m._execute = lambda *_: 1 / 0",
    "in Prefect's executor": "from spine_worker.starter import ForkStarter as m; m.start = lambda *_, **__: 1 / 0",
    "in an interpreter": "import prefect.flow_engine as m; del m.AsyncFlowRunEngine",
    "in the process of a run": "import spine_worker.forking.child as m; m.use_known = lambda *_: 1 / 0",
}
IN_INTERPRETERS = ("in an interpreter", "in the process of a run")
REASONS = {
    "a name is gone": "prefect.runner._workspace_starter:workspace_environment",
    "the worker's module fails": "Launches",
    # The worker's log says more.
    "in Prefect's executor": "RuntimeError",
    "in an interpreter": "AsyncFlowRunEngine",
    "in the process of a run": "its process ended with status 1 before the run had begun",
}


@pytest.mark.parametrize("name", BREAKS)
def test_runs_go_on_and_readiness_says_why(name: str, stack: PrefectStack, tmp_path: Path) -> None:
    # Python imports this module whenever it starts.
    program = "spine_worker/forking/main.py" if name in IN_INTERPRETERS else "prefect worker start"
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(
        f"import sys\nif {program!r} in ' '.join(sys.orig_argv):\n    {BREAKS[name]}\n"
    )
    path = {"PYTHONPATH": f"{tmp_path / 'broken'}:{stack.environment.get('PYTHONPATH', '')}".rstrip(":")}
    with served_pool("spine", stack, tmp_path / "pool", **path) as pool:
        pool.deploy("launches.py:sleeps_for")
        runs = [pool.run("sleeps_for", seconds=0) for _ in range(2)]
        assert {run.fact["parent"] for run in runs} == {pool.worker.pid}
        reason = REASONS.get(name, "ZeroDivisionError")
        states = [stack.get(f"/flow_run_states/?flow_run_id={run.id}") for run in runs]
        assert [state["type"] for every in states for state in every if state["type"] in ENDED] == ["COMPLETED"] * 2
        assert pool.log.read_text().count("Runs start in a new interpreter") == 1

        def is_told() -> bool:
            state, detail = asyncio.run(worker_health(stack, pool.name))
            return state == "degraded" and reason in detail

        wait_until(is_told, "readiness to say why", 30)


async def worker_health(stack: PrefectStack, pool: str) -> tuple[str, str]:
    """The state of the worker in `/health/ready`, and its explanation."""
    with temporary_settings({PREFECT_API_URL: stack.url}):
        async with Prefect.connect(10) as prefect:
            found = await _check_worker(prefect, pool)
            return found.state, found.detail
