"""`Idempotency-Key`: a request that is sent twice starts one run, also after crashes and lost answers."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from spine.database import make_engine, make_sessions
from spine.idempotency.service import KEPT_FOR
from spine.tables.base import utc_now
from spine.tables.idempotency import IdempotentRequest
from sqlalchemy import update

from tests.schedules.support import IDLE_POOL, ensure_pool
from tests.support.api_here import api_here
from tests.support.processes import PROJECT, wait_until
from tests.support.proxy import Proxy
from tests.support.stack import ADMIN_KEY, Api, PrefectStack, api_process
from tests.support.variants import one_by_default
from tests.support.web import WEB, serving

CREATION = "/create_flow_run"


@dataclass
class Order:
    """A request that must be done once; its mark finds the runs that it started."""

    workflow: str
    mark: str = field(default_factory=lambda: uuid4().hex)
    headers: dict[str, str] = field(default_factory=lambda: {"Idempotency-Key": uuid4().hex})

    @property
    def params(self) -> dict[str, Any]:
        return {"day": "2025-12-12", "tier": "A", "options": {"mark": self.mark}}

    @property
    def path(self) -> str:
        return f"/workflows/trigger/{self.workflow}"

    def send(self, client: httpx.Client) -> httpx.Response:
        return client.post(self.path, json={"params": self.params}, headers=self.headers)

    def runs(self, stack: PrefectStack) -> list[str]:
        """The ids of the runs in Prefect that it started."""
        of_flow = {"flows": {"name": {"any_": [self.workflow]}}}
        newest = stack.post("/flow_runs/filter", {**of_flow, "sort": "EXPECTED_START_TIME_DESC", "limit": 200})
        return [run["id"] for run in newest if run["parameters"].get("options") == {"mark": self.mark}]


@pytest.fixture(scope="module")
def workflow(stack: PrefectStack) -> str:
    """The name of a workflow with the parameters of `demo.typed`, whose runs need not run: no worker takes them."""
    ensure_pool(stack, IDLE_POOL)
    return stack.copy_deployment("demo.typed", IDLE_POOL)


@pytest.fixture
def order(workflow: str) -> Order:
    return Order(workflow)


def test_the_same_request_again_gets_the_same_bytes_and_starts_nothing(
    each_api: Api, stack: PrefectStack, order: Order
) -> None:
    answers = [order.send(each_api.client) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert len({answer.content for answer in answers}) == 1
    assert {answer.headers["Content-Type"] for answer in answers} == {"application/json"}
    assert order.runs(stack) == [answers[0].json()["run_id"]]


def test_without_a_key_every_request_starts_a_run(each_api: Api, stack: PrefectStack, order: Order) -> None:
    for _ in range(2):
        each_api.trigger(order.workflow, **order.params)
    assert len(order.runs(stack)) == 2


def test_white_space_and_order_of_keys_do_not_change_a_body(each_api: Api, stack: PrefectStack, order: Order) -> None:
    first = order.send(each_api.client)
    turned = json.dumps({"params": dict(reversed(order.params.items()))}, indent=3)
    again = each_api.client.post(
        order.path, content=turned, headers={**order.headers, "Content-Type": "application/json"}
    )
    assert again.content == first.content
    assert len(order.runs(stack)) == 1


def test_another_body_with_the_same_key_is_rejected(each_api: Api, stack: PrefectStack, order: Order) -> None:
    first = order.send(each_api.client)
    other = each_api.client.post(order.path, json={"params": {**order.params, "tier": "B"}}, headers=order.headers)
    assert other.status_code == 409
    assert "Idempotency-Key" in other.json()["detail"]
    assert order.send(each_api.client).content == first.content
    assert len(order.runs(stack)) == 1


def test_callers_do_not_share_keys(each_api: Api, stack: PrefectStack, order: Order) -> None:
    database = each_api.settings.database_url
    environment = {"SPINE_DATABASE_URL": database.get_secret_value()} if database else {}
    made = subprocess.run(
        [sys.executable, "-m", "spine.cli", "keys", "create", f"other-{order.mark}", "--scope", "write"],
        env={**os.environ, "SPINE_HOME": str(each_api.settings.home), **environment},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    mine, theirs = order.send(each_api.client), order.send(each_api.as_key(made.stdout.strip()))
    assert (mine.status_code, theirs.status_code) == (201, 201)
    assert sorted(order.runs(stack)) == sorted([mine.json()["run_id"], theirs.json()["run_id"]])


def test_workflows_do_not_share_keys(each_api: Api, stack: PrefectStack, order: Order) -> None:
    first, body = order.send(each_api.client), {"params": {"marks": "nowhere"}}
    sleeper = stack.copy_deployment("demo.sleeper", IDLE_POOL)
    other = each_api.client.post(f"/workflows/trigger/{sleeper}", json=body, headers=order.headers)
    assert other.json()["workflow_name"] == sleeper
    assert other.json()["run_id"] != first.json()["run_id"]


def race(order: Order, clients: list[httpx.Client]) -> list[httpx.Response]:
    """Send the order over all clients at the same moment.

    Prefect on SQLite can lock itself out under a burst; whoever gets the 503 for that repeats, as keys are for.
    """
    start = threading.Barrier(len(clients))

    def send(client: httpx.Client) -> httpx.Response:
        start.wait(10)
        for _ in range(5):
            answer = order.send(client)
            if answer.status_code != 503:
                break
        return answer

    with ThreadPoolExecutor(len(clients)) as pool:
        return list(pool.map(send, clients))


def test_ten_requests_at_once_start_one_run_and_get_one_answer(
    each_api: Api, stack: PrefectStack, order: Order
) -> None:
    answers = race(order, [each_api.as_key(ADMIN_KEY) for _ in range(10)])
    assert [answer.status_code for answer in answers] == [201] * 10
    assert len({answer.content for answer in answers}) == 1
    assert order.runs(stack) == [answers[0].json()["run_id"]]


def test_two_api_processes_on_one_database_start_one_run(
    postgresql_api: Api, second_postgresql_api: Api, stack: PrefectStack, workflow: str
) -> None:
    for order in (Order(workflow), Order(workflow), Order(workflow)):
        answers = race(order, [api.as_key(ADMIN_KEY) for api in (postgresql_api, second_postgresql_api) * 2])
        assert [answer.status_code for answer in answers] == [201] * 4
        assert len({answer.content for answer in answers}) == 1
        assert order.runs(stack) == [answers[0].json()["run_id"]]


@pytest.mark.slow
def test_keys_survive_a_restart_of_the_api(
    stack: PrefectStack, order: Order, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("restarted")
    with api_here(stack.url, stack.home, folder) as api:
        first = order.send(api.client)
    with api_process(stack.url, stack.home, folder) as api:
        second = order.send(api.client)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.content == first.content
    assert len(order.runs(stack)) == 1


def test_a_client_that_disconnects_and_repeats_the_request_gets_one_run(
    each_api: Api, stack: PrefectStack, order: Order
) -> None:
    request = each_api.client.build_request("POST", order.path, json={"params": order.params}, headers=order.headers)
    lines = [f"POST {request.url.raw_path.decode()} HTTP/1.1", *(f"{k}: {v}" for k, v in request.headers.items())]
    address = urlsplit(each_api.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + request.content)
    answer = order.send(each_api.client)
    assert answer.status_code == 201
    assert order.runs(stack) == [answer.json()["run_id"]]
    assert order.send(each_api.client).content == answer.content


def test_a_client_that_timed_out_while_prefect_was_slow_gets_the_run_that_it_requested(
    proxied_api: Api, proxy: Proxy, stack: PrefectStack, order: Order
) -> None:
    with proxy.hanging():
        with pytest.raises(httpx.ReadTimeout):
            proxied_api.client.post(order.path, json={"params": order.params}, headers=order.headers, timeout=1)
        assert order.runs(stack) == []
    wait_until(lambda: len(order.runs(stack)) == 1, "the work to go on without its client", 15)
    answer = order.send(proxied_api.client)
    assert answer.status_code == 201
    assert order.runs(stack) == [answer.json()["run_id"]]


def test_a_rejected_request_does_not_use_up_its_key(each_api: Api, stack: PrefectStack, order: Order) -> None:
    wrong = each_api.client.post(order.path, json={"params": {**order.params, "tier": "Z"}}, headers=order.headers)
    assert wrong.status_code == 400
    right = order.send(each_api.client)
    assert right.status_code == 201
    assert order.runs(stack) == [right.json()["run_id"]]


def age(api: Api, answer: bytes, by: timedelta) -> None:
    """Make the stored request with this answer as old as `by`."""

    async def run() -> None:
        engine = make_engine(api.settings.sqlalchemy_url)
        async with make_sessions(engine).begin() as session:
            aged = update(IdempotentRequest).where(IdempotentRequest.answer == answer)
            await session.execute(aged.values(created_at=utc_now() - by))
        await engine.dispose()

    asyncio.run(run())


def test_a_key_is_kept_for_24_hours_and_then_free(each_api: Api, stack: PrefectStack, order: Order) -> None:
    assert timedelta(hours=24) == KEPT_FOR
    first = order.send(each_api.client)
    age(each_api, first.content, timedelta(hours=23, minutes=59))
    assert order.send(each_api.client).content == first.content
    age(each_api, first.content, timedelta(hours=24, seconds=1))
    second = order.send(each_api.client)
    assert second.status_code == 201
    assert sorted(order.runs(stack)) == sorted([first.json()["run_id"], second.json()["run_id"]])


def test_a_broken_connection_to_prefect_starts_no_second_run(
    proxied_api: Api, proxy: Proxy, stack: PrefectStack, order: Order
) -> None:
    proxy.drops_left = 1
    answer = order.send(proxied_api.client)
    assert proxy.drops_left == 0
    assert answer.status_code == 201
    assert order.runs(stack) == [answer.json()["run_id"]]


class AnswerLoser(ThreadingHTTPServer):
    """Forwards all requests to Prefect, but closes the connection instead of answering the first creations of runs."""

    def __init__(self, target: str, losses_left: int) -> None:
        self.target, self.losses_left, self.creations = target, losses_left, 0
        super().__init__(("127.0.0.1", 0), AnswerLoserHandler)


class AnswerLoserHandler(BaseHTTPRequestHandler):
    server: AnswerLoser

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = f"{self.server.target}{self.path.removeprefix('/api')}"
        answer = WEB.request(self.command, url, content=body, headers={"Content-Type": "application/json"})
        # Where Prefect's database was busy it made no run; the API asks again, and only then there is one to lose.
        if self.path.endswith(CREATION) and answer.is_success:
            self.server.creations += 1
            if self.server.losses_left:
                self.server.losses_left -= 1
                return
        self.send_response(answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.mark.parametrize("keyed", one_by_default([True, False]), ids=["with a key", "without a key"])
def test_an_answer_that_is_lost_after_prefect_made_the_run_starts_no_second_run(
    keyed: bool, stack: PrefectStack, order: Order, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = AnswerLoser(stack.url, losses_left=1)
    url = f"http://127.0.0.1:{server.server_port}/api"
    with serving(server), api_here(url, stack.home, tmp_path_factory.mktemp("lost")) as api:
        headers = order.headers if keyed else {}
        answer = api.client.post(order.path, json={"params": order.params}, headers=headers)
    assert (server.losses_left, server.creations) == (0, 2)
    assert answer.status_code == 201
    assert order.runs(stack) == [answer.json()["run_id"]]
