"""What is checked before the body: the credential, the method and the scope; HEAD, and times in queries."""

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from spine.auth.callers import Scope
from spine.auth.service import create_key
from spine.database import make_engine, make_sessions, transaction

from tests.http.support import Document, filled, operations
from tests.support.stack import ADMIN_KEY, Api
from tests.support.web import PATIENCE, WEB

MEGABYTE = 1024 * 1024
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


def too_long() -> Iterator[bytes]:
    for _ in range(40):
        yield b" " * 65_536


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b'{"broken', "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"{}", "text/plain"),
        (b"{}", None),
        (b" " * (MEGABYTE + 1), "application/json"),
        (None, "application/json"),
    ],
    ids=["no JSON", "no UTF-8", "wrong media type", "no media type", "too large", "too large, in chunks"],
)
def test_without_a_credential_the_body_does_not_matter(
    content: bytes | None, media_type: str | None, door: Api, document: Document
) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    with httpx.Client(base_url=f"{door.url}/api/v1", timeout=PATIENCE) as client:
        for method, path, operation in operations(document):
            if method in ("GET", "HEAD"):
                continue
            address = filled(path, operation)
            response = client.request(
                method, address, content=too_long() if content is None else content, headers=headers
            )
            assert response.status_code == 401, (method, path, response.text)


def first_line(api: Api, request: str) -> str:
    """The status line that comes while the body is still to be sent."""
    url = urlsplit(api.url)
    with socket.create_connection((str(url.hostname), url.port or 0), timeout=10) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode())
        return connection.recv(4_096).decode().splitlines()[0]


def without_its_body(path: str, key: str) -> str:
    return (
        f"POST /api/v1{path} HTTP/1.1\nHost: spine\nContent-Type: application/json\nContent-Length: 100\n"
        f"X-API-Key: {key}\n\n"
    )


async def test_the_credential_and_the_scope_are_checked_before_the_body_arrives(door: Api) -> None:
    engine = make_engine(door.settings.sqlalchemy_url)
    async with transaction(make_sessions(engine)) as session:
        _, reader = await create_key(session, "reader", [Scope.READ])
    await engine.dispose()
    assert "401" in first_line(door, without_its_body("/alerts", "spine_wrong"))
    assert "403" in first_line(door, without_its_body("/alerts", reader))
    assert "405" in first_line(door, without_its_body("/alerts/stats", ADMIN_KEY))


def test_an_unknown_path_is_404_with_a_credential_and_401_without(door: Api) -> None:
    assert door.client.get("/nowhere").status_code == 404
    assert WEB.get(f"{door.url}/api/v1/nowhere").status_code == 401
    assert WEB.get(f"{door.url}/nowhere").status_code == 404


def test_allow_names_all_methods_of_every_path(door: Api, document: Document) -> None:
    tried = 0
    for path, documented in document["paths"].items():
        methods = {method.upper() for method in documented}
        allowed = methods | ({"HEAD"} if "GET" in methods else set())
        operation = next(iter(documented.values()))
        for method in METHODS - methods:
            response = door.client.request(method, f"{door.url}{filled(path, operation)}")
            assert response.status_code == 405, (method, path, response.text)
            assert set(response.headers["Allow"].split(", ")) == allowed, (method, path)
            assert response.json()["detail"].startswith("This path does not support this method")
            tried += 1
    assert tried > 80


def test_head_works_where_get_does(door: Api, document: Document) -> None:
    public = [(path, methods["get"]) for path, methods in document["paths"].items() if "get" in methods]
    assert len(public) > 20
    for path, operation in [*public, ("/docs", {}), ("/openapi.json", {})]:
        address = f"{door.url}{filled(path, operation)}"
        got, head = door.client.get(address), door.client.head(address)
        assert head.status_code == got.status_code, path
        assert head.content == b""
        # Each request adds to what is measured.
        length = () if path == "/metrics" else ("Content-Length",)
        for name in ("Content-Type", "Retry-After", *length):
            assert head.headers.get(name) == got.headers.get(name), (path, name)
    assert WEB.head(f"{door.url}/api/v1/alerts").status_code == 401


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-05",
        "2026-01-05T06:30",
        "2026-01-05T06:30:00",
        "2026-01-05T06:30:00Z",
        "2026-01-05t06:30:00z",
        "2026-01-05T06:30:00.123456+02:00",
        "2026-01-05T06:30:00,5-0730",
        "2026-01-05T06:30:00+02",
    ],
)
def test_times_in_queries_are_iso_8601(time: str, door: Api) -> None:
    assert door.client.get("/alerts", params={"since": time}).status_code == 200


@pytest.mark.parametrize(
    "time",
    [
        "1700000000",
        "1700000000000",
        "1.7e9",
        "20240101112",
        "-1",
        "0",
        "",
        "now",
        "2026-01-05 06:30:00",
        "2026-01-05x06:30:00",
        "2026-01-05T06:30:00 02:00",
        "2026-13-05T06:30:00Z",
        "2026-02-30",
        "2026-01-05T25:00:00Z",
        "2026-01-05T06:30:00+99:00",
        "\u0662\u0660\u0662\u0666-01-05",
        "2026-01-05T06:30:00Z\n",
        "0001-01-01T00:00:00+14:00",
        "P1D",
    ],
)
def test_any_other_time_is_422(time: str, door: Api) -> None:
    response = door.client.get("/alerts", params={"since": time})
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["loc"] == ["query", "since"]
