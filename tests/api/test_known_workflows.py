"""Starting runs of workflows that the process knows: one call of Prefect, and never by what is no longer so."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.auth.callers import Caller, Scope
from spine.auth.domains import Domains
from spine.errors import BadRequest, NotFound, SpineError
from spine.prefect.client import Prefect
from spine.workflows import known_workflows
from spine.workflows.known_workflows import SECONDS_TO_SETTLE, KnownWorkflows
from spine.workflows.schemas import WorkflowTriggerResponse
from spine.workflows.trigger import trigger_workflow

from tests.support.proxy import Proxy, proxy_to
from tests.support.stack import PrefectStack
from tests.support.variants import one_in

CALLER = Caller("key:test", "test", frozenset({Scope.WRITE}))
VALID = {"day": "2025-12-15", "tier": "A", "count": 2}


class Desk:
    """A process that triggers one workflow over a proxy, and hears of its changes."""

    def __init__(self, stack: PrefectStack, prefect: Prefect, proxy: Proxy, name: str) -> None:
        self.stack, self.prefect, self.proxy, self.name = stack, prefect, proxy, name
        self.known = KnownWorkflows()
        self.deployment = stack.deployment(name, name)

    async def trigger(self, caller: Caller = CALLER, **params: Any) -> WorkflowTriggerResponse:
        prefect = self.prefect.for_one_request()
        return await trigger_workflow(prefect, self.known, caller, self.name, params or VALID, uuid4().hex)

    async def calls(self, work: Callable[[], Awaitable[object]]) -> list[str]:
        """The requests to Prefect that `work` takes, by the end of their path."""
        self.proxy.requests.clear()
        with suppress(SpineError):
            await work()
        paths = [line.split()[1] for line in self.proxy.requests]
        # Those of the stream, and the client's look at the version, belong to no trigger.
        aside = ("/events/", "/admin/", "/csrf-token")
        return [path.rpartition("/")[2] for path in paths if not any(one in path for one in aside)]

    async def known_for_certain(self) -> None:
        """Trigger until the deployment is taken for current."""
        for _ in range(600):
            if self.known.current(self.name) is not None:
                return
            await self.trigger()
            await asyncio.sleep(0.1)
        raise AssertionError("nothing is taken for current")

    def count_runs(self) -> int:
        return int(self.stack.post("/flow_runs/count", {"flows": {"name": {"any_": [self.name]}}}))


@pytest.fixture
def workflow(stack: PrefectStack) -> str:
    """A copy of `demo.typed` that no worker runs."""
    pool = f"nobody-{uuid4().hex[:6]}"
    stack.post("/work_pools/", {"name": pool, "type": "process"})
    return stack.copy_deployment("demo.typed", pool)


@pytest.fixture(autouse=True)
def age(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known does not become too old while a slow machine runs a test."""
    monkeypatch.setattr(known_workflows, "LONGEST_CURRENT", 3_600.0)


@pytest.fixture
def news(stack: PrefectStack) -> Iterator[Proxy]:
    """A proxy of its own, whose requests are those of one test."""
    with proxy_to(int(stack.url.split(":")[2].split("/")[0])) as started:
        yield started


@asynccontextmanager
async def desk_for(stack: PrefectStack, proxy: Proxy, name: str, *, listens: bool = True) -> AsyncIterator[Desk]:
    with temporary_settings({PREFECT_API_URL: proxy.url}):
        async with Prefect.connect(60) as prefect:
            desk = Desk(stack, prefect, proxy, name)
            if not listens:
                yield desk
                return
            async with desk.known.running():
                await desk.known_for_certain()
                yield desk


async def test_a_trigger_of_a_known_workflow_is_one_call(stack: PrefectStack, news: Proxy, workflow: str) -> None:
    async with desk_for(stack, news, workflow) as desk:
        assert await desk.calls(desk.trigger) == ["create_flow_run"]
        limited = Caller("key:limited", "limited", CALLER.scopes, Domains(("demo.types",)))
        assert set(await desk.calls(lambda: desk.trigger(limited))) == {"filter"}
        # Before a parameter is refused, the deployment is read.
        assert await desk.calls(lambda: desk.trigger(day="2025-12-15", tier="C")) == ["filter"]


@pytest.mark.slow
async def test_without_the_event_stream_the_deployment_is_read_each_time(
    stack: PrefectStack, news: Proxy, workflow: str
) -> None:
    async with desk_for(stack, news, workflow, listens=False) as desk:
        for _ in range(3):
            assert await desk.calls(desk.trigger) == ["filter", "create_flow_run"]
            await asyncio.sleep(SECONDS_TO_SETTLE)


async def test_a_stream_that_breaks_ends_the_knowledge(stack: PrefectStack, news: Proxy, workflow: str) -> None:
    async with desk_for(stack, news, workflow) as desk:
        news.streams = False
        with news.refusing():
            await asyncio.sleep(1)
            assert desk.known.current(workflow) is None
        assert await desk.calls(desk.trigger) == ["filter", "create_flow_run"]


@pytest.mark.slow
async def test_what_was_read_some_time_ago_is_read_again(
    stack: PrefectStack, news: Proxy, workflow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk_for(stack, news, workflow) as desk:
        monkeypatch.setattr(known_workflows, "LONGEST_CURRENT", 0.0)
        assert await desk.calls(desk.trigger) == ["filter", "create_flow_run"]


def without(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return {**schema, "properties": {key: value for key, value in schema["properties"].items() if key != name}}


def with_required(schema: dict[str, Any], name: str) -> dict[str, Any]:
    added = {**schema["properties"], name: {"title": name, "type": "string", "position": 9}}
    return {**schema, "properties": added, "required": [*schema["required"], name]}


def with_format(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return {**schema, "properties": {**schema["properties"], name: {"type": "string", "format": "uuid", "position": 1}}}


@pytest.mark.parametrize(
    ("change", "named"),
    one_in(
        4,
        [
            (lambda schema: {"parameter_openapi_schema": without(schema, "count")}, "count"),
            (lambda schema: {"parameter_openapi_schema": with_required(schema, "region")}, "region"),
            (lambda schema: {"parameter_openapi_schema": with_format(schema, "tier")}, "tier"),
            (
                lambda schema: {
                    "enforce_parameter_schema": False,
                    "parameter_openapi_schema": with_format(schema, "count"),
                },
                "count",
            ),
        ],
    ),
    ids=["a parameter is gone", "one is new", "a format", "another type, which Prefect does not check"],
)
async def test_a_schema_that_changed_a_moment_ago_applies(
    stack: PrefectStack, news: Proxy, workflow: str, change: Callable[[dict[str, Any]], dict[str, Any]], named: str
) -> None:
    async with desk_for(stack, news, workflow) as desk:
        before = desk.count_runs()
        stack.patch(f"/deployments/{desk.deployment['id']}", change(desk.deployment["parameter_openapi_schema"]))
        with pytest.raises(BadRequest) as refused:
            await desk.trigger()
        assert [error.loc[2] for error in refused.value.errors] == [named]
        assert desk.count_runs() == before


async def test_a_deployment_that_was_deleted_or_made_again_is_noticed(
    stack: PrefectStack, news: Proxy, workflow: str
) -> None:
    async with desk_for(stack, news, workflow) as desk:
        stack.delete(f"/deployments/{desk.deployment['id']}")
        with pytest.raises(SpineError, match="has no deployment"):
            await desk.trigger()
        kept = ("name", "flow_id", "entrypoint", "path", "pull_steps", "parameter_openapi_schema", "work_pool_name")
        again = stack.post("/deployments/", {name: desk.deployment[name] for name in kept})
        run = stack.get(f"/flow_runs/{(await desk.trigger()).run_id}")
        assert run["deployment_id"] == again["id"] != desk.deployment["id"]
        await desk.known_for_certain()
        stack.delete(f"/flows/{desk.deployment['flow_id']}")
        with pytest.raises(NotFound, match="No workflow is named"):
            await desk.trigger()


async def test_defaults_and_tags_that_changed_a_moment_ago_are_those_of_the_run(
    stack: PrefectStack, news: Proxy, workflow: str
) -> None:
    async with desk_for(stack, news, workflow) as desk:
        changes = {"parameters": {"count": 7}, "tags": ["domain:other"]}
        stack.patch(f"/deployments/{desk.deployment['id']}", changes)
        run = stack.get(f"/flow_runs/{(await desk.trigger(day='2025-12-15', tier='A')).run_id}")
        assert (run["parameters"]["count"], "domain:other" in run["tags"]) == (7, True)
