"""The private names of Prefect that the worker uses: each must exist in the form that the worker expects.

A new version of Prefect may rename any of them. This test says which ones; the other tests say what no longer works.
"""

import ast
import importlib
import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio.abc
import prefect.client.orchestration
import prefect.engine
import prefect.flow_engine
import prefect.workers.base
import pytest
import spine_worker
from prefect.runner._cancellation_manager import CancellationManager
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._state_proposer import StateProposer
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker
from spine_worker import collection, execution, plain
from spine_worker.execution import SharedContext
from spine_worker.prefect_names import PRIVATE_ATTRIBUTES, PRIVATE_NAMES, calls_load_flow, missing_names
from spine_worker.worker import SpineJobConfiguration, SpineWorker

from tests.support.processes import PROJECT
from tests.support.source_code import imports_of
from tests.support.stack import PrefectStack

SOURCES = sorted(Path(spine_worker.__file__).parent.rglob("*.py"))
README = PROJECT / "deployments" / "README.md"
# Names whose absence is noticed later, or does no harm.
NOTICED_OTHERWISE = {
    # `substitute` fails, before a run begins.
    *("on_cancelling", "on_failure", "_get_attempt_conclusion"),
    # An engine server without them does not start, and says so.
    *("metrics", "_asyncio", "_emoji_codes"),
    # Only Prefect 3.8 has them.
    *("_consumer_task", "_events_subscriber", "_reconnect_on_clean_close"),
    # Without them each client has certificates of its own.
    *("ssl", "create_default_context"),
    # Of a process, or the keys of related objects, which are checked where they are used.
    *("pid", "returncode", "deployment"),
    # No names of Prefect's.
    *("_MODULES", "__main__"),
}


def test_prefect_has_every_private_name_that_the_worker_uses() -> None:
    assert missing_names() == []


@pytest.mark.parametrize("name", PRIVATE_NAMES)
def test_without_any_private_name_prefects_own_worker_takes_over(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remove(name, monkeypatch)
    assert name in missing_names()
    assert taken_by_prefects_worker(monkeypatch) == missing_names()


def taken_by_prefects_worker(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names for whose absence Prefect's own worker is registered."""
    taken: list[list[str]] = []
    monkeypatch.setattr(plain, "register_plain_worker", taken.append)
    collection.load_worker()
    (missing,) = taken
    return missing


@pytest.mark.parametrize("name", PRIVATE_ATTRIBUTES)
def test_without_any_private_attribute_prefects_own_worker_takes_over(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, path = name.partition(":")
    kind, _, attribute = path.partition(".")
    owner: Any = getattr(importlib.import_module(module), kind)
    make = owner.__init__

    def make_without(made: Any, *args: Any, **kwargs: Any) -> None:
        make(made, *args, **kwargs)
        delattr(made, attribute)

    monkeypatch.setattr(owner, "__init__", make_without)
    assert missing_names() == [name]
    assert taken_by_prefects_worker(monkeypatch) == [name]


@pytest.mark.parametrize("name", execution.PRIVATE_ATTRIBUTES)
async def test_a_context_without_any_of_its_attributes_is_refused_and_closed(
    name: str, stack: PrefectStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter, leave = FlowRunExecutorContext.__aenter__, FlowRunExecutorContext.__aexit__
    opened, closed = [], []

    async def open_without(context: Any) -> Any:
        await enter(context)
        opened.append(context)
        delattr(context, name)
        return context

    async def close(context: Any, *reason: Any) -> None:
        await leave(context, *reason)
        closed.append(context)

    monkeypatch.setattr(FlowRunExecutorContext, "__aenter__", open_without)
    monkeypatch.setattr(FlowRunExecutorContext, "__aexit__", close)
    with temporary_settings({PREFECT_API_URL: stack.url}), pytest.raises(AttributeError, match=name):
        await SharedContext().__aenter__()
    # When it closes, Prefect's own client of events may leave a connection behind that it was just restoring.
    assert (len(opened), closed) == (1, opened)


def test_the_readme_has_no_private_name_whose_absence_goes_unnoticed() -> None:
    section = README.read_text().partition("### Private names of Prefect")[2].partition("\n### ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
    quoted = {word for cell in cells if "Python:" not in cell for word in re.findall(r"`([\w.]+)`", cell)}
    names = {word.rpartition(".")[2] for word in quoted if not word.startswith("PREFECT__")}
    noticed = " ".join((*PRIVATE_NAMES, *PRIVATE_ATTRIBUTES, *execution.PRIVATE_ATTRIBUTES))
    assert len(names) > 60
    assert {name for name in names if name not in noticed} == NOTICED_OTHERWISE


def test_what_prefect_has_no_more_cannot_be_replaced() -> None:
    replaced = SimpleNamespace(there=1)
    execution.substitute(replaced, "there", 2)
    with pytest.raises(AttributeError, match="gone"):
        execution.substitute(replaced, "gone", 3)
    assert vars(replaced) == {"there": 2}


def test_prefects_own_worker_needs_no_private_name() -> None:
    waiting, seen = ["deployments/spine_worker/plain.py"], set[str]()
    while waiting:
        seen.add(file := waiting.pop())
        imported = imports_of(file)
        assert {one for one in imported if one.startswith("prefect.") and "._" in one} == set()
        own = (one.rpartition(".")[0].replace(".", "/") for one in imported if one.startswith("spine_worker."))
        waiting += [path for one in own if (path := f"deployments/{one}.py") not in seen]
    assert "deployments/spine_worker/forking/overlaps.py" in seen


def test_a_function_with_a_further_parameter_that_is_required_counts_as_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "prefect.runner._workspace_starter:workspace_environment"
    monkeypatch.setattr("prefect.runner._workspace_starter.workspace_environment", lambda workspace, more=None: None)
    assert missing_names() == []
    monkeypatch.setattr("prefect.runner._workspace_starter.workspace_environment", lambda workspace, more: None)
    assert missing_names() == [name]


def remove(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a private name out of Prefect, as a new release might, for one test."""
    module, _, path = name.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, last = path.split(".")
    for part in parents:
        owner = getattr(owner, part)
    monkeypatch.delattr(next(one for one in getattr(owner, "__mro__", (owner,)) if last in vars(one)), last)


def test_every_private_name_that_the_worker_imports_is_in_the_list() -> None:
    imported = {
        f"{node.module}:{alias.name}"
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prefect.")
        for alias in node.names
        if "._" in f"{node.module}.{alias.name}"
    }
    listed = {re.sub(r":(\w+).*", r":\1", name) for name in PRIVATE_NAMES}
    assert imported - listed == set()


def test_prefect_calls_every_private_method_that_the_worker_overrides() -> None:
    overridden = {name for name in vars(SpineWorker) if name.startswith("_") and not name.startswith("__")}
    overridden = {name for name in overridden if callable(getattr(ProcessWorker, name, None))}
    assert {f"prefect.workers.base:BaseWorker.{name}" for name in overridden} <= set(PRIVATE_NAMES)
    source = inspect.getsource(prefect.workers.base)
    assert {name for name in overridden if f"self.{name}" not in source} == set()
    assert "._base_environment()" in source


def test_a_worker_and_its_configuration_have_the_private_attributes_of_prefect() -> None:
    worker = SpineWorker(work_pool_name="pool")
    assert worker._submitting_flow_run_ids == set()
    assert worker._has_successfully_synced is False
    assert (worker._runs_task_group, worker._work_pool) == (None, None)
    assert worker._work_pool_name == "pool"
    assert worker._logger.name
    assert SpineJobConfiguration()._command_configured is False
    assert ProcessJobConfiguration()._related_objects == {}


async def test_an_execution_context_has_the_private_attributes_of_prefect(stack: PrefectStack) -> None:
    with temporary_settings({PREFECT_API_URL: stack.url}):
        async with SharedContext() as context:
            assert context.is_live
            if (events := getattr(context._observer, "_events_subscriber", None)) is not None:
                assert events._reconnect_on_clean_close is True
            assert context._observer.on_cancelling == context._begin_to_cancel
            assert isinstance(context._cancellation_manager, CancellationManager)
            assert isinstance(context._cancellation_task_group, anyio.abc.TaskGroup)
            assert isinstance(context._state_proposer, StateProposer)
            assert context._logger.name


def test_prefects_clients_take_certificates_from_the_function_of_ssl_that_the_fork_servers_replace() -> None:
    assert "ssl.create_default_context" in inspect.getsource(prefect.client.orchestration)


def test_prefects_engine_observes_suspensions_under_the_name_that_the_fork_servers_replace() -> None:
    assert "observe_flow_run_suspension(" in inspect.getsource(prefect.flow_engine)


def test_an_engine_that_loads_the_flow_in_another_way_counts_as_a_missing_name() -> None:
    program = inspect.getsource(prefect.engine)
    assert calls_load_flow(program)
    assert not calls_load_flow(program.replace("load_flow(flow_run)", "load_flow_of(flow_run)"))
    assert not calls_load_flow(program.replace("            load_flow,\n", ""))
    assert not calls_load_flow("")
