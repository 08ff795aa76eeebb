"""Whatever a server sends, the process that reads it stays within its memory and ends at its deadline."""

import gzip
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from spine.connections.resolved_connection import ResolvedConnection
from spine.egress.fetch_failure import FetchFailure
from spine.sources.readers.database import open_query_reader

from tests.connections.conftest import mariadb, postgresql, postgresql_with_port, sqlite  # noqa: F401
from tests.connections.misbehaving import serving
from tests.sources.isolated import MEMORY, SHARED, Desk

MEGABYTE = 1 << 20
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
XML = OK + b"Content-Type: application/xml\r\nTransfer-Encoding: chunked\r\n\r\n"


def endless(start: bytes, unit: bytes, pause: float = 0) -> Callable[[], Iterator[bytes]]:
    """A reply that never ends; with a pause in seconds it comes unit by unit."""

    def pieces() -> Iterator[bytes]:
        yield start
        block = unit if pause else unit * max(1, 65_536 // len(unit))
        while True:
            time.sleep(pause)
            yield block

    return pieces


def gzipped() -> Iterator[bytes]:
    yield OK + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n"
    yield gzip.compress(bytes(600 * MEGABYTE), 1, mtime=0)


@dataclass(frozen=True)
class Server:
    """A server's reply to every request, and the beginning of the refusal."""

    name: str
    pieces: Callable[[], Iterator[bytes]]
    refusal: str
    max_bytes: int | None = 30 * MEGABYTE


TIME = "was not read within the 3 s"
BYTES = "has more than the 31,457,280 bytes"
INVALID = "closed the connection or sent invalid HTTP|" + TIME
SERVERS = [
    Server("body", endless(CHUNKED, b"10000\r\n" + b"x" * 65_536 + b"\r\n"), BYTES),
    Server("body-without-length", endless(OK + b"\r\n", b"x" * 65_536), BYTES),
    Server("chunks-of-one-byte", endless(CHUNKED, b"1\r\nx\r\n"), f"{TIME}|{BYTES}"),
    Server("length-of-a-chunk", endless(CHUNKED, b"1" * 65_536), "before all of|invalid HTTP"),
    Server("chunk-extension", endless(CHUNKED + b"1;", b"x" * 65_536), "before all of|invalid HTTP"),
    Server("trailers", endless(CHUNKED + b"0\r\n", b"a: b\r\n"), "before all of|invalid HTTP"),
    Server("status-line", endless(b"HTTP/1.1 200 ", b"x" * 65_536), INVALID),
    Server("headers", endless(OK, b"a: b\r\n"), INVALID),
    Server("one-header", endless(OK + b"a: ", b"x" * 65_536), INVALID),
    Server("informational", endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), TIME),
    Server("slow-headers", endless(OK, b"a: b\r\n", pause=0.05), TIME),
    Server("slow-body", endless(CHUNKED, b"1\r\nx\r\n", pause=0.05), TIME, max_bytes=None),
    Server("gzip", gzipped, BYTES),
    Server("gzip-without-limit", gzipped, "expands to more than", max_bytes=None),
]
LISTINGS = [
    Server("listing", endless(XML, b"10000\r\n" + b"<a></a> " * 8192 + b"\r\n"), f"needs more than the|{TIME}"),
    Server(
        "error",
        endless(XML.replace(b"200 OK", b"403 Forbidden"), b"10000\r\n" + b"x" * 65_536 + b"\r\n"),
        f"needs more than the|{TIME}",
    ),
]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    server: Server = request.getfixturevalue("server")

    def answer(connection: socket.socket) -> None:
        connection.recv(65_536)
        for piece in server.pieces():
            connection.sendall(piece)

    with serving(answer) as found:
        yield found


def some(servers: list[Server], quick: str) -> list[object]:
    return [
        pytest.param(server, id=server.name, marks=[] if server.name == quick else pytest.mark.slow)
        for server in servers
    ]


@pytest.mark.parametrize("server", some(SERVERS, "gzip"))
def test_a_hostile_http_server_is_refused_in_bounded_memory_and_time(desk: Desk, server: Server, port: int) -> None:
    reader = desk.reader("http", {"url": f"http://127.0.0.1:{port}/a.bin"})
    with pytest.raises(FetchFailure, match=server.refusal):
        desk.read(reader, "http", seconds=3 if "3 s" in server.refusal else 60, max_bytes=server.max_bytes)
    assert_bounded(desk)


@pytest.mark.slow
@pytest.mark.parametrize("server", LISTINGS, ids=lambda server: server.name)
def test_a_hostile_object_store_is_refused_in_bounded_memory_and_time(desk: Desk, server: Server, port: int) -> None:
    config = {"bucket": "desk", "key": "in/*.csv", "endpoint_url": f"http://127.0.0.1:{port}"}
    with pytest.raises(FetchFailure, match=server.refusal):
        desk.read(desk.reader("s3", config), "s3", seconds=3)
    assert_bounded(desk)


WIDE = {
    "postgresql": "SELECT repeat('x', 900000000) AS a",
    "mariadb": "SELECT REPEAT('x', 16000000) AS a" + "".join(f", REPEAT('x', 16000000) AS a{at}" for at in range(30)),
    "sqlite": "SELECT hex(zeroblob(450000000)) AS a",
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind != "sqlite" else []) for kind in WIDE]
)
def test_a_wide_row_of_a_database_is_refused_in_bounded_memory(
    desk: Desk, kind: str, request: pytest.FixtureRequest
) -> None:
    target: ResolvedConnection = request.getfixturevalue(kind)
    with pytest.raises(FetchFailure, match="needs more than the 400,000,000 bytes of memory"):
        desk.read(partial(open_query_reader, target, WIDE[kind]), "database", seconds=60)
    assert_bounded(desk)


@pytest.mark.slow
def test_an_endless_greeting_of_an_ssh_server_is_refused_in_bounded_memory_and_time(desk: Desk) -> None:
    def answer(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"x\r\n" * 20_000)

    with serving(answer) as port:
        config = {"host": "127.0.0.1", "port": port, "username": "u", "path": "/a", "host_key": HOST_KEY}
        reader = desk.reader("sftp", {**config, "password_ref": "file:/run/secrets/a"}, password_ref="p")
        with pytest.raises(FetchFailure):
            desk.read(reader, "sftp", seconds=3)
    assert_bounded(desk)


HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE0ksfuGYNZJPdsP5OzEvzcRlIgvdVwiLlWTnSVXuP3D"


def assert_bounded(desk: Desk) -> None:
    assert desk.peak_bytes < MEMORY + SHARED
    assert list(desk.parts.glob("*")) == []
