"""Spine's API and Prefect's, over one connection each, to be measured in turns."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx

from tests.benchmarks.bench import Bench
from tests.benchmarks.conditions import SQLITE
from tests.benchmarks.figures import Aim, Row, middle
from tests.benchmarks.timing import Action, alternate
from tests.support.stack import ADMIN_KEY, Api, PrefectStack
from tests.support.web import PLAIN


class Pair:
    """Spine's API and Prefect's, called in turns."""

    def __init__(self, bench: Bench, spine: httpx.AsyncClient, prefect: httpx.AsyncClient) -> None:
        self.bench = bench
        self.spine = spine
        self.prefect = prefect

    async def row(self, what: str, ours: Action, compared: str, direct: Action, *aims: Aim) -> None:
        """Measure and add one row."""
        spent = await alternate(ours, direct, self.bench.scale.rounds)
        figures = [middle(times, "ms") for times in spent]
        self.bench.add(Row(what, figures[0], compared, figures[1], aims, SQLITE))

    async def read(self, path: str, **query: Any) -> None:
        """GET from Spine."""
        (await self.spine.get(path, params=query)).raise_for_status()

    async def write(self, path: str, body: Any = None) -> None:
        """POST to Spine."""
        (await self.spine.post(path, json=body)).raise_for_status()

    async def post(self, path: str, body: Any) -> Any:
        """POST to Prefect."""
        return (await self.prefect.post(path, json=body)).raise_for_status().json()

    def create(self, deployment_id: str, parameters: dict[str, Any]) -> Awaitable[Any]:
        """Start a run as Prefect's own client would."""
        body = {"parameters": parameters, "idempotency_key": uuid4().hex}
        return self.post(f"/deployments/{deployment_id}/create_flow_run", body)


@asynccontextmanager
async def connected(bench: Bench, stack: PrefectStack, api: Api) -> AsyncIterator[Pair]:
    """Clients of both."""
    headers = {"X-API-Key": ADMIN_KEY}
    async with (
        httpx.AsyncClient(base_url=f"{api.url}/api/v1", headers=headers, timeout=60, verify=PLAIN) as spine,
        httpx.AsyncClient(base_url=stack.url, timeout=60, verify=PLAIN) as prefect,
    ):
        yield Pair(bench, spine, prefect)
