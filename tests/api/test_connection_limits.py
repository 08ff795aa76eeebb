"""Slow heads, slow bodies, idle and unread connections are cut, and the number of connections is bounded."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import pytest
import uvicorn
from spine.http.connections import ConnectionLimits
from spine.serve import limits_for, server_config
from spine.settings import Settings

from tests.support.processes import wait_until
from tests.support.web import PATIENCE, WEB

QUICK = ConnectionLimits(head_seconds=0.4, body_seconds=0.4, unread_seconds=0.4, idle_seconds=1, most=8)
HEAD = b"POST /echo HTTP/1.1\r\nhost: spine\r\ncontent-length: %d\r\n\r\n"
GET = b"GET /echo HTTP/1.1\r\nhost: spine\r\n\r\n"


async def application(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Answers with the length of the body; below `/large`, with more than a socket takes."""
    body = b""
    while scope["method"] == "POST":
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message.get("more_body"):
            break
    parts = [b"x" * 1_000_000] * 64 if scope["path"] == "/large" else [b"%d" % len(body)]
    length = b"%d" % sum(map(len, parts))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@contextmanager
def server_with(limits: ConnectionLimits) -> Iterator[int]:
    """A real server with this application; its port."""
    config = server_config(lambda: application, Settings(), limits=limits, log_config=None)
    config.lifespan = "off"
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, "the server to start", 30, every=0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with server_with(QUICK) as started:
        yield started


def connect(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=20)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def answer_of(client: socket.socket) -> bytes:
    """All that the server sends until it closes the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while part := client.recv(65536):
            received += part
    return received


def trickle(client: socket.socket, data: bytes) -> None:
    """Send single bytes, each before a limit that counts from the last byte would end."""
    with suppress(OSError):
        for byte in data:
            client.sendall(bytes([byte]))
            time.sleep(0.05)


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: sp", b"POST /echo HTTP/1.1\r\nhost: a\r\nx: "], ids=repr
)
def test_a_connection_that_sends_no_whole_head_is_cut(port: int, sent: bytes) -> None:
    with connect(port) as client:
        client.sendall(sent)
        assert answer_of(client).startswith(b"HTTP/1.1 408 ")


def test_single_bytes_of_a_head_do_not_keep_a_connection_open(port: int) -> None:
    with connect(port) as client:
        trickle(client, b"GET / HTTP/1.1\r\n" + b"x-padding: 1\r\n" * 20)
        assert b"200 OK" not in answer_of(client)


def test_single_bytes_of_a_body_do_not_keep_a_connection_open(port: int) -> None:
    with connect(port) as client:
        client.sendall(HEAD % 1000)
        trickle(client, b"a" * 60)
        assert b"200 OK" not in answer_of(client)


def test_a_body_that_never_comes_is_answered_by_408(port: int) -> None:
    with connect(port) as client:
        client.sendall(HEAD % 10 + b"half ")
        assert answer_of(client).startswith(b"HTTP/1.1 408 ")


def test_the_second_head_of_a_connection_has_the_same_limit(port: int) -> None:
    with connect(port) as client:
        client.sendall(GET)
        assert b"200 OK" in client.recv(65536)
        trickle(client, b"GET / HTTP/1.1\r\n" + b"x-padding: 1\r\n" * 20)
        assert b"200 OK" not in answer_of(client)


def test_an_idle_connection_is_closed(port: int) -> None:
    with connect(port) as client:
        client.sendall(GET)
        answer = answer_of(client)
        assert b"200 OK" in answer
        assert b"408" not in answer


def test_a_client_that_does_not_read_its_response_is_cut(port: int) -> None:
    with connect(port) as client:
        client.sendall(GET.replace(b"/echo", b"/large"))
        time.sleep(QUICK.unread_seconds + 0.6)
        assert len(answer_of(client)) < 64_000_000


def test_requests_in_time_are_served_one_after_the_other_and_pipelined(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
        for length in (0, 10, 300_000):
            assert client.post("/echo", content=b"a" * length).text == str(length)
            time.sleep(0.5)
        assert len(client.get("/large").content) == 64_000_000
    with connect(port) as client:
        client.sendall((HEAD % 3 + b"abc") * 3)
        assert answer_of(client).count(b"200 OK") == 3


def test_new_connections_take_the_place_of_those_that_wait_longest(port: int) -> None:
    with ExitStack() as held:
        silent = [held.enter_context(connect(port)) for _ in range(40)]
        for _ in range(5):
            assert WEB.get(f"http://127.0.0.1:{port}/echo").text == "0"
        assert len(silent) > QUICK.most


def test_connections_beyond_the_limit_get_503_while_all_are_served() -> None:
    with server_with(ConnectionLimits(unread_seconds=30, most=3)) as port, ExitStack() as held:
        for _ in range(3):
            reading = held.enter_context(connect(port))
            reading.sendall(GET.replace(b"/echo", b"/large"))
            assert reading.recv(10)
        refused = WEB.get(f"http://127.0.0.1:{port}/echo")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")


def test_the_limits_follow_the_settings() -> None:
    assert limits_for(Settings()) == ConnectionLimits()
    wide = limits_for(Settings(max_body_bytes=100_000_000, max_connections=7))
    assert (wide.body_seconds, wide.most) == (2000, 7)


@pytest.mark.slow
def test_many_attackers_do_not_lock_out_a_client_of_another_address() -> None:
    limits = ConnectionLimits(head_seconds=2, body_seconds=2, unread_seconds=2, idle_seconds=2, most=50)
    opened, stop = [0], threading.Event()

    def attack(number: int, port: int) -> None:
        while not stop.is_set():
            with suppress(OSError), connect(port) as client:
                opened[0] += 1
                client.sendall((b"GET / HT", HEAD % 100, GET, b"")[number % 4])
                client.settimeout(3)
                client.recv(100)
                client.recv(100)
            stop.wait(0.05)

    answered = 0
    with server_with(limits) as port, ExitStack() as held:
        for one in range(200):
            attacker = threading.Thread(target=attack, args=(one, port), daemon=True)
            attacker.start()
            held.callback(attacker.join, 10)
        held.callback(stop.set)
        elsewhere = held.enter_context(httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")))
        for _ in range(50):
            with suppress(httpx.HTTPError):
                answer = elsewhere.get(f"http://127.0.0.1:{port}/echo", headers={"connection": "close"}, timeout=10)
                answered += answer.status_code == 200
    # Many times what the server keeps open; how many times depends on the machine.
    assert opened[0] > 4 * limits.most
    assert answered == 50
