"""For every library, the address that is checked is the address that is used."""

import asyncio
import contextvars
import gc
import os
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import requests
import trustme
from spine.egress.guard import MOST_TRACKED, AddressRefused, ConnectionGuard, guarded

from tests.support.receivers import Receiver, hang, receiver, refuse


@pytest.fixture
def desk() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def test_requests_are_refused_before_anything_is_sent(desk: Receiver) -> None:
    with guarded(allow_private=False) as guard, pytest.raises(requests.ConnectionError):
        requests.get(desk.url, timeout=5)
    assert "127.0.0.1 is a private address" in (guard.refused or "")
    assert desk.requests == []
    with guarded(allow_private=True) as guard:
        assert requests.get(desk.url, timeout=5).status_code == 200
    assert guard.refused is None
    assert requests.get(desk.url, timeout=5).status_code == 200


def test_a_refused_connection_is_never_opened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with guarded(allow_private=False), pytest.raises(requests.ConnectionError):
            _get(f"http://127.0.0.1:{server.getsockname()[1]}/")
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_redirect_is_checked_again(desk: Receiver) -> None:
    desk.always = refuse(302, Location="http://169.254.169.254/latest/meta-data")
    with guarded(allow_private=True) as guard, pytest.raises(requests.ConnectionError):
        requests.get(desk.url, timeout=5)
    assert "metadata" in (guard.refused or "")


def test_a_host_name_is_checked_by_the_address_it_resolves_to_when_it_is_used(
    desk: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == "rebound.test" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with guarded(allow_private=False) as guard, pytest.raises(requests.ConnectionError):
        requests.get(f"http://rebound.test:{desk.port}/", timeout=5)
    assert guard.refused
    assert desk.requests == []


async def test_every_library_is_guarded(desk: Receiver) -> None:
    with guarded(allow_private=False):
        async with httpx.AsyncClient(timeout=5) as client:
            with pytest.raises((httpx.ConnectError, AddressRefused)):
                await client.get(desk.url)
        with pytest.raises(AddressRefused):
            smtplib.SMTP("127.0.0.1", desk.port, timeout=2)
        with socket.socket(socket.AF_UNIX) as local, pytest.raises(AddressRefused, match="only IPv4 and IPv6"):
            local.connect("/var/run/anything.sock")
        assert await asyncio.to_thread(_is_refused, desk.port)
    assert desk.requests == []


def _is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except AddressRefused:
        return True
    return False


def test_a_name_cannot_be_resolved_behind_the_guard(desk: Receiver) -> None:
    with guarded(allow_private=True), socket.socket() as connection:
        with pytest.raises(AddressRefused):
            connection.connect(("localhost", desk.port))
        with pytest.raises(AddressRefused):
            connection.connect_ex(("169.254.169.254", 80))


def test_a_datagram_cannot_be_sent_to_a_refused_address() -> None:
    with guarded(allow_private=False), socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(AddressRefused):
            datagrams.sendto(b"x", ("127.0.0.1", 9))
        with pytest.raises(AddressRefused):
            datagrams.sendmsg([b"x"], [], 0, ("127.0.0.1", 9))


def test_an_inner_block_cannot_allow_what_the_outer_block_refuses(desk: Receiver) -> None:
    with guarded(allow_private=False) as outer, guarded(allow_private=True) as inner:
        assert _is_refused(desk.port)
    assert inner.refused
    assert outer.refused == inner.refused
    with guarded(allow_private=True), guarded(allow_private=False):
        assert _is_refused(desk.port)


@contextmanager
def hanging(work: Callable[[], None], ready: threading.Event | None = None) -> Iterator[ConnectionGuard]:
    """Work in a guarded thread that hangs until the block aborts it, and must then end soon."""
    ended = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except OSError as error:
            errors.append(error)
        finally:
            ended.set()

    with guarded(allow_private=True) as guard:
        threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True).start()
        assert ready is None or ready.wait(10)
        assert not ended.wait(0.3)
        yield guard
        assert ended.wait(10)
        assert errors


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_work_that_hangs_can_be_aborted(scheme: str) -> None:
    # The server accepts and sends nothing, so that over TLS the handshake hangs.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with hanging(lambda: _get(f"{scheme}://127.0.0.1:{port}/")) as guard:
            guard.abort()
            guard.abort()
            assert _is_refused(port)
        assert not _is_refused(port)


def _get(url: str, verify: str | bool = True) -> None:
    requests.get(url, timeout=60, verify=verify)


def test_work_that_hangs_behind_tls_can_be_aborted(tmp_path: Path) -> None:
    authority, shaken = trustme.CA(), threading.Event()
    roots = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(roots)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    over = threading.Event()

    def serve(listening: socket.socket) -> None:
        with context.wrap_socket(listening.accept()[0], server_side=True) as connection:
            if connection.recv(4):
                shaken.set()
            over.wait(30)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=serve, args=(listening,), daemon=True)
        server.start()
        with hanging(lambda: _get(f"https://127.0.0.1:{listening.getsockname()[1]}/", str(roots)), shaken) as guard:
            guard.abort()
        over.set()
        server.join(10)


@pytest.mark.parametrize("limit", [None, 60])
@pytest.mark.skipif(sys.platform != "linux", reason="on other systems the connect ends by its timeout")
def test_a_connect_without_an_answer_can_be_aborted(limit: float | None) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        connection = stack.enter_context(socket.socket())
        connection.settimeout(limit)
        with hanging(lambda: connection.connect(full.getsockname())) as guard:
            guard.abort()


def test_aborting_an_outer_block_aborts_inner_blocks(desk: Receiver) -> None:
    desk.always = hang

    def work() -> None:
        with guarded(allow_private=True):
            _get(desk.url)

    with hanging(work) as outer:
        outer.abort()
        with guarded(allow_private=True):
            assert _is_refused(desk.port)


@pytest.mark.parametrize("aborted", [False, True])
def test_nothing_is_left_open(aborted: bool) -> None:
    gc.collect()
    before = psutil.Process().num_fds()
    with socket.create_server(("127.0.0.1", 0), backlog=4 * MOST_TRACKED) as listening:
        address = listening.getsockname()
        with guarded(allow_private=True) as guard:
            for _ in range(2 * MOST_TRACKED):
                socket.create_connection(address, 5).close()
            assert psutil.Process().num_fds() - before <= MOST_TRACKED + 1
            with guarded(allow_private=False), pytest.raises(AddressRefused):
                socket.create_connection(address, 5)
            if aborted:
                guard.abort()
            late = contextvars.copy_context()
        # Work that outlives its block is still checked, and keeps nothing open.
        assert late.run(_is_refused, address[1]) is aborted
    assert psutil.Process().num_fds() <= before


def test_a_default_timeout_leaves_a_blocking_connection_blocking(desk: Receiver) -> None:
    socket.setdefaulttimeout(60)
    try:
        with guarded(allow_private=True), socket.socket() as connection:
            connection.settimeout(None)
            connection.connect(("127.0.0.1", desk.port))
            assert os.get_blocking(connection.fileno())
    finally:
        socket.setdefaulttimeout(None)


def test_a_second_import_adds_no_second_hook() -> None:
    script = """
import importlib, socket
from spine.egress import guard
importlib.reload(guard)
checked = []
guard.ConnectionGuard.check = lambda self, connection, address: checked.append(address)
with guard.guarded(True), socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname(), 5).close()
print(len(checked))
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60).stdout == b"1\n"
