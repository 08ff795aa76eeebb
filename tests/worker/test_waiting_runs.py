"""Whether the worker polls when a run has ended: only where another run may have waited for that."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine_worker.waiting_runs import WaitingRuns

from tests.support.stack import PrefectStack


@pytest.fixture
async def client(stack: PrefectStack) -> AsyncIterator[PrefectClient]:
    """Prefect's client."""
    with temporary_settings({PREFECT_API_URL: stack.url}):
        async with get_client() as client:
            yield client


async def may_wait(waiting: WaitingRuns, client: PrefectClient, pool: str, *, is_worker_limited: bool = False) -> bool:
    """What is known once queues and pool are read."""
    await waiting.read_queues(client, pool)
    return waiting.may_wait(await client.read_work_pool(pool), is_worker_limited=is_worker_limited)


async def test_runs_wait_only_for_limits(client: PrefectClient, stack: PrefectStack) -> None:
    name = f"pool-{uuid4().hex[:6]}"
    stack.post("/work_pools/", {"name": name, "type": "spine"})
    waiting = WaitingRuns()
    assert waiting.may_wait(await client.read_work_pool(name), is_worker_limited=False)
    waiting.polled([])
    assert not await may_wait(waiting, client, name)
    assert await may_wait(waiting, client, name, is_worker_limited=True)
    stack.patch(f"/work_pools/{name}", {"concurrency_limit": 1})
    assert await may_wait(waiting, client, name)
    stack.patch(f"/work_pools/{name}", {"concurrency_limit": None})
    stack.post(f"/work_pools/{name}/queues", {"name": "limited", "concurrency_limit": 3})
    assert await may_wait(waiting, client, name)


async def test_runs_may_wait_after_a_refusal_until_a_poll_finds_none(
    client: PrefectClient, stack: PrefectStack
) -> None:
    name = f"pool-{uuid4().hex[:6]}"
    stack.post("/work_pools/", {"name": name, "type": "spine"})
    waiting = WaitingRuns()
    waiting.polled(range(200))
    assert await may_wait(waiting, client, name)
    waiting.polled(range(3))
    assert not await may_wait(waiting, client, name)
    waiting.refused()
    waiting.polled(range(3))
    assert await may_wait(waiting, client, name)
    waiting.polled([])
    assert not await may_wait(waiting, client, name)
