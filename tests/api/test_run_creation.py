"""Runs that are created at the same time go to Prefect in few requests, and each caller gets its own."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.errors import BadRequest, NotFound
from spine.prefect.client import FlowRun, Prefect
from spine.prefect.run_creation import MOST_AT_ONCE

from tests.support.proxy import Proxy, proxy_to
from tests.support.stack import PrefectStack

VALID = {"day": "2025-12-15", "tier": "A"}


@pytest.fixture
def workflow(stack: PrefectStack) -> str:
    """A copy of `demo.typed` that no worker runs."""
    pool = f"nobody-{uuid4().hex[:6]}"
    stack.post("/work_pools/", {"name": pool, "type": "process"})
    return stack.copy_deployment("demo.typed", pool)


@pytest.fixture
def between(stack: PrefectStack) -> Iterator[Proxy]:
    with proxy_to(int(stack.url.split(":")[2].split("/")[0])) as started:
        yield started


class Desk:
    def __init__(self, stack: PrefectStack, prefect: Prefect, name: str) -> None:
        self.prefect = prefect
        self.name = name
        self.deployment_id = UUID(stack.deployment(name, name)["id"])

    def create(self, key: str, **params: Any) -> asyncio.Task[FlowRun]:
        """Create a run for a request of its own."""
        creation = self.prefect.for_one_request().create_run(
            self.deployment_id, parameters={**VALID, **params}, tags=[key], labels={"key": key}, idempotency_key=key
        )
        return asyncio.create_task(creation)


@asynccontextmanager
async def desk_for(stack: PrefectStack, proxy: Proxy, name: str) -> AsyncIterator[Desk]:
    with temporary_settings({PREFECT_API_URL: proxy.url}):
        async with Prefect.connect(60) as prefect:
            yield Desk(stack, prefect, name)


def sent(proxy: Proxy) -> list[str]:
    """What was sent to Prefect, by the end of each path, without the client's look at the version."""
    paths = [line.split()[1] for line in proxy.requests]
    return sorted(path.rpartition("/")[2] for path in paths if "/admin/" not in path and "/csrf-token" not in path)


def count_runs(stack: PrefectStack, flow: str) -> int:
    return int(stack.post("/flow_runs/count", {"flows": {"name": {"any_": [flow]}}}))


async def test_fifty_at_once_take_a_handful_of_requests(stack: PrefectStack, between: Proxy, workflow: str) -> None:
    async with desk_for(stack, between, workflow) as desk:
        keys = [uuid4().hex for _ in range(50)]
        runs = await asyncio.gather(*(desk.create(key, count=number) for number, key in enumerate(keys)))
        # After each request that creates some, one reads what was created.
        assert sent(between) == ["bulk"] * -(-50 // MOST_AT_ONCE) + ["filter"] * -(-50 // MOST_AT_ONCE)
    assert count_runs(stack, workflow) == 50
    assert [run.parameters["count"] for run in runs] == list(range(50))
    for key, run in list(zip(keys, runs, strict=True))[::10]:
        stored = stack.get(f"/flow_runs/{run.id}")
        assert (stored["idempotency_key"], stored["labels"]["key"], stored["name"]) == (key, key, run.name)
        assert (stored["state"]["type"], key in stored["tags"]) == ("SCHEDULED", True)


async def test_one_alone_is_one_request(stack: PrefectStack, between: Proxy, workflow: str) -> None:
    async with desk_for(stack, between, workflow) as desk:
        await desk.create(uuid4().hex)
        assert sent(between) == ["create_flow_run"]


async def test_a_key_makes_one_run_also_among_many(stack: PrefectStack, between: Proxy, workflow: str) -> None:
    async with desk_for(stack, between, workflow) as desk:
        key = uuid4().hex
        runs = await asyncio.gather(*(desk.create(key) for _ in range(6)))
        assert {run.id for run in runs} == {(await desk.create(key)).id}
    assert count_runs(stack, workflow) == 1


async def test_one_that_prefect_refuses_leaves_the_others(stack: PrefectStack, between: Proxy, workflow: str) -> None:
    async with desk_for(stack, between, workflow) as desk:
        some = [desk.create(uuid4().hex, tier="C" if number == 3 else "A") for number in range(6)]
        done = await asyncio.gather(*some, return_exceptions=True)
        assert [type(one) for one in done] == [BadRequest if number == 3 else FlowRun for number in range(6)]
        assert "tier" in str(done[3])
    assert count_runs(stack, workflow) == 5


async def test_all_learn_that_the_deployment_is_gone(stack: PrefectStack, between: Proxy, workflow: str) -> None:
    async with desk_for(stack, between, workflow) as desk:
        stack.delete(f"/deployments/{desk.deployment_id}")
        done = await asyncio.gather(*(desk.create(uuid4().hex) for _ in range(4)), return_exceptions=True)
        assert [type(one) for one in done] == [NotFound] * 4


async def test_a_caller_that_stops_waiting_takes_its_run_back(
    stack: PrefectStack, between: Proxy, workflow: str
) -> None:
    async with desk_for(stack, between, workflow) as desk:
        with between.hanging():
            first = desk.create(uuid4().hex)
            await asyncio.sleep(0.2)
            second, third = desk.create(uuid4().hex), desk.create(uuid4().hex)
            await asyncio.sleep(0)
            second.cancel()
        await asyncio.gather(first, third)
    assert count_runs(stack, workflow) == 2
