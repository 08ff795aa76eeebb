"""What the worker's client caches of a real server, and what it reads again."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine_worker.caching_client import CachingClient

from tests.support.stack import PrefectStack


@pytest.fixture
def deployment(stack: PrefectStack) -> str:
    """A deployment whose version can be changed."""
    flow = stack.post("/flows/", {"name": "cached"})["id"]
    return str(stack.post("/deployments/", {"flow_id": flow, "name": uuid4().hex, "version": "old"})["id"])


@pytest.fixture
async def client(stack: PrefectStack) -> AsyncIterator[PrefectClient]:
    """Prefect's client."""
    with temporary_settings({PREFECT_API_URL: stack.url}):
        async with get_client() as client:
            yield client


async def test_runs_of_one_poll_share_one_request_for_their_deployment(client: PrefectClient, deployment: str) -> None:
    requests = []

    async def count(request: object) -> None:
        requests.append(request)

    caching = CachingClient(client)
    await caching.read_deployment(UUID(deployment))
    client._client.event_hooks = {"request": [count]}
    caching.expire()
    read = await asyncio.gather(*(caching.read_deployment(UUID(deployment)) for _ in range(20)))
    assert {one.version for one in read} == {"old"}
    assert len(requests) == 1


async def test_a_run_that_is_scheduled_after_a_change_gets_the_changed_deployment(
    client: PrefectClient, deployment: str, stack: PrefectStack
) -> None:
    caching = CachingClient(client)
    assert (await caching.read_deployment(UUID(deployment))).version == "old"
    stack.patch(f"/deployments/{deployment}", {"version": "new"})
    caching.expire()
    assert (await caching.read_deployment(UUID(deployment))).version == "new"
