"""The reason of a failure in the list of runs, in the detail and in Prefect, for many small runs of one worker."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.support.prefect_processes import prefect_worker
from tests.support.stack import Api, PrefectStack
from tests.support.variants import one_by_default, one_in

# By the way in which a run fails: what its error begins with, and its category.
EXPECTED = {
    "key": ("KeyError: 'week_ending'", "PIPELINE"),
    "empty": ("ValueError", "VALIDATION"),
    "lines": ("ValueError: first\nsecond: x", "VALIDATION"),
    "group": ("ExceptionGroup: both (2 sub-exceptions)", "PIPELINE"),
    "long": ("ValueError: xxx", "VALIDATION"),
    "half a pair": ("ValueError: half \\ud800 of a pair", "VALIDATION"),
    "null": ("ValueError: a\\x00b", "VALIDATION"),
    "step with null": ("ValueError: a\\x00b", "VALIDATION"),
    "memory": ("MemoryError: no more", "INTERNAL"),
    "chain": ("RuntimeError: could not publish", "NETWORK"),
    "mute": ("RuntimeError: no text", "PIPELINE"),
    "returned": ("KeyError: 'inner'", "PIPELINE"),
    "refused child": (
        "ParameterTypeError: Flow run received invalid parameters:\n - number: Input should",
        "VALIDATION",
    ),
    "unknown argument": ("ParameterBindError: Error binding parameters for function 'strict_child'", "VALIDATION"),
    "decimal": ("ParameterTypeError: Flow run received invalid parameters:\n - amount: Input should", "VALIDATION"),
    "task time": ("Flow run failed due to timeout: TaskRunTimeoutError(", "ORCHESTRATION"),
    "late child": ("A flow or task that it called exceeded its timeout.", "ORCHESTRATION"),
    "abort": ("The run was given up without a state, as after `prefect.exceptions.Abort`", "ORCHESTRATION"),
    "late socket": ("Flow run failed due to timeout: TimeoutError(", "NETWORK"),
    "segv": ("Process exited with status code: -11 (SIGSEGV)", "ORCHESTRATION"),
    "kill": ("Process exited with status code: -9 (SIGKILL)", "ORCHESTRATION"),
    "exit": ("Process exited with status code: 3", "ORCHESTRATION"),
    "sys exit": ("Execution was aborted by Python system exit call.", "ORCHESTRATION"),
    "gone": ("FileNotFoundError(2, 'No such file or directory')", "CONFIG"),
    "syntax": ("SyntaxError(", "CONFIG"),
    "quits": ("SystemExit: no licence for this host", "CONFIG"),
    "left": ("The process ended without a report of the run's state", "ORCHESTRATION"),
    "kwargs": ("TypeError: 'int' object is not iterable", "VALIDATION"),
    "text for decimal": ("ParameterTypeError: Flow run received invalid parameters:\n - amount", "VALIDATION"),
}
LOADED_BADLY = {
    "gone": None,
    "syntax": "def begun(\n",
}
# The file of the flow ends the process; Prefect's own worker leaves a run PENDING whose file ends it with status 0.
ENDING = {"left": "import os\nos._exit(0)\n", "quits": "import sys\nsys.exit('no licence for this host')\n"}
# Ways of which only the spine worker knows the reason.
OF_SPINE = {*ENDING, "abort", "half a pair", "null", "step with null"}
# Where the exception is outside of the flow, the process worker's state has only the status of the process.
OUTSIDE = {*LOADED_BADLY, "kwargs", "mute"}


@pytest.fixture(scope="module", params=one_by_default(["spine", "process"]))
def pool(
    request: pytest.FixtureRequest, stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A work pool with a worker of this type."""
    kind = str(request.param)
    if kind == "spine":
        yield kind
        return
    name = f"process-{uuid4().hex[:6]}"
    stack.post("/work_pools/", {"name": name, "type": kind})
    with prefect_worker(stack.environment, tmp_path_factory.mktemp("worker") / "worker.log", name, kind):
        yield name
    stack.delete(f"/work_pools/{name}")


@pytest.fixture(scope="module")
def failed(
    request: pytest.FixtureRequest, api: Api, stack: PrefectStack, pool: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """The details of the runs that fail, by the way that a test asks for, started together."""
    folder = tmp_path_factory.mktemp("reasons")
    workflow = stack.copy_deployment("demo.fails_by", pool)
    runs = {}
    asked = {item.callspec.params.get("way") for item in request.session.items if hasattr(item, "callspec")}
    for way in (way for way in EXPECTED if way in asked):
        if way in OF_SPINE and pool != "spine":
            continue
        if way in ENDING:
            (folder / f"{way}_flow.py").write_text(ENDING[way])
            runs[way] = run_of(stack, pool, f"{folder / f'{way}_flow.py'}:begun")
        elif way in LOADED_BADLY:
            file = folder / f"{way}_flow.py"
            if (code := LOADED_BADLY[way]) is not None:
                file.write_text(code)
            runs[way] = run_of(stack, pool, f"{file}:begun")
        elif way == "kwargs":
            runs[way] = run_of(stack, pool, "tests/demo/failing.py:many_words", kwargs=5)
        elif way == "text for decimal":
            runs[way] = run_of(stack, pool, "tests/demo/failing.py:exact", amount="abc")
        else:
            runs[way] = api.trigger(workflow, way=way)
    return {way: api.wait_for(run_id, seconds=240) for way, run_id in runs.items()}


def run_of(stack: PrefectStack, pool: str, entrypoint: str, **parameters: Any) -> str:
    """A run of a deployment of its own, whose parameters nobody checks before."""
    name = stack.copy_deployment("demo.fails_by", pool)
    deployment = stack.deployment(name, name)["id"]
    stack.patch(f"/deployments/{deployment}", {"entrypoint": entrypoint, "enforce_parameter_schema": False})
    body = {"parameters": parameters, "enforce_parameter_schema": False}
    return str(stack.post(f"/deployments/{deployment}/create_flow_run", body)["id"])


@pytest.mark.parametrize("way", one_in(3, EXPECTED))
def test_list_detail_and_prefect_give_the_same_reason(
    api: Api, stack: PrefectStack, pool: str, failed: dict[str, dict[str, Any]], way: str
) -> None:
    if way in OF_SPINE and pool != "spine":
        pytest.skip("only the spine worker reports it")
    detail = failed[way]
    begins, category = EXPECTED[way]
    assert detail["status"] == "FAILED"
    if way in LOADED_BADLY:
        assert detail["error"].startswith("ScriptError: Script at ")
        assert begins in detail["error"]
    else:
        assert detail["error"].startswith(begins)
    assert detail["error_category"] == category
    listed = api.get("/workflows/runs", workflow_name=detail["workflow_name"], limit=100)["data"]
    (row,) = (one for one in listed if one["run_id"] == detail["run_id"])
    assert row["error"] == (detail["error"] if way != "long" else f"{detail['error'][:999]}…")
    state = stack.get(f"/flow_runs/{detail['run_id']}")["state"]["message"]
    if way == "returned":
        # Prefect's count of the steps; Spine shows the error of the first of them.
        assert state == "2/3 states failed."
    elif way == "late child":
        assert state == "Flow run exceeded timeout of None second(s)"
    elif pool == "spine":
        assert detail["error"] in state
    elif way not in OUTSIDE:
        assert detail["error"].partition(" (SIG")[0] in state
