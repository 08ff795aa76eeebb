"""The routes of the cache, over a real HTTP server."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import psutil
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI
from spine.auth.domains import EVERY_DOMAIN
from spine.cache.entries import count_read
from spine.cache.maintenance import CacheMaintenance
from spine.cache.store import BlobStore
from spine.database import make_engine, make_sessions
from spine.http.dependencies import get_domains
from spine.http.errors import install_error_handlers
from spine.settings import Settings
from spine.sources.cache_routes import router
from spine.tables.base import utc_now
from spine.tables.cache import CacheLease
from sqlalchemy import func, make_url, select

from tests.cache.support import Cache, hash_of, new_entry
from tests.support.processes import free_port, wait_until

LARGE = os.urandom(24 * 1024 * 1024 + 5)


@asynccontextmanager
async def serving(database_url: str, store: BlobStore) -> AsyncIterator[httpx.AsyncClient]:
    """A server of these routes with connections of its own."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = make_engine(make_url(database_url))
        sessions = app.state.sessions = make_sessions(engine)
        app.state.cache_store, app.state.cache_maintenance = store, CacheMaintenance(sessions, store, None)
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.dependency_overrides[get_domains] = lambda: EVERY_DOMAIN
    api = APIRouter(prefix="/api/v1")
    api.include_router(router)
    app.include_router(api)
    install_error_handlers(app)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        await asyncio.to_thread(wait_until, lambda: server.started, "the server to start", 20, every=0.01)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1/sources/cache", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        await asyncio.to_thread(thread.join)


@pytest.fixture
def database_url(either_database_url: str) -> str:
    return either_database_url


@pytest.fixture
async def client(cache: Cache, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(database_url, cache.store) as made:
        yield made


@pytest.fixture
async def s3_client(s3_cache: Cache, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(database_url, s3_cache.store) as made:
        yield made


async def test_entries_are_listed_newest_first_and_by_source(cache: Cache, client: httpx.AsyncClient) -> None:
    source, other = await cache.source(), await cache.source()
    (first,) = await cache.fetch(source, b"1")
    (second,) = await cache.fetch(other, b"22", expires_at=utc_now())
    listed = (await client.get("")).json()
    assert [row["id"] for row in listed["data"]] == [second.id, first.id]
    assert listed["pagination"]["total"] == 2
    assert (await client.get("", params={"limit": 1})).json()["data"][0]["id"] == second.id
    name = await cache.name_of(source)
    for wanted in (source, name):
        (row,) = (await client.get("", params={"source_id": wanted})).json()["data"]
        assert row == {
            "id": first.id,
            "source_id": source,
            "source_name": name,
            "cache_key": "0",
            "content_hash": hash_of(b"1"),
            "size_bytes": 1,
            "cached_at": row["cached_at"],
            "expires_at": None,
            "fetch_id": first.fetch_id,
            "content_type": "text/csv",
            "encoding": None,
        }
    assert (await client.get("", params={"source_id": "nobody"})).status_code == 404


async def test_statistics_count_entries_bytes_and_hits(cache: Cache, client: httpx.AsyncClient) -> None:
    assert (await client.get("/stats")).json() == {
        "total_entries": 0,
        "total_bytes": 0,
        "hit_rate": 0.0,
        "miss_rate": 0.0,
        "expired_entries": 0,
        "by_source": {},
    }
    source, other = await cache.source(), await cache.source()
    await cache.fetch(source, b"same", b"more", expires_at=utc_now() - timedelta(seconds=1))
    await cache.fetch(other, b"same")
    for hit in (True, True, True, False):
        async with cache.sessions.begin() as session:
            await count_read(session, hit=hit)
    assert (await client.get("/stats")).json() == {
        "total_entries": 3,
        "total_bytes": 8,
        "hit_rate": 0.75,
        "miss_rate": 0.25,
        "expired_entries": 2,
        "by_source": {await cache.name_of(source): 2, await cache.name_of(other): 1},
    }


async def test_clearing_reports_what_was_removed(cache: Cache, client: httpx.AsyncClient) -> None:
    source, other = await cache.source(), await cache.source()
    await cache.fetch(source, b"a" * 34_567, b"")
    await cache.fetch(other, b"x", expires_at=utc_now() - timedelta(seconds=1))
    name = await cache.name_of(source)
    assert (await client.delete("", params={"source_id": name, "expired_only": True})).json() == {
        "id": source,
        "status": "cleared",
        "message": "0 entries and 0 bytes were removed.",
    }
    assert (await client.delete("", params={"source_id": name})).json()["message"] == (
        "2 entries and 34,567 bytes were removed."
    )
    cleared = (await client.delete("", params={"expired_only": True})).json()
    assert (cleared["id"], cleared["message"]) == ("cache", "1 entry and 1 byte were removed.")
    assert (await client.delete("", params={"source_id": "nobody"})).status_code == 404
    assert (await client.get("/stats")).json()["total_bytes"] == 0


async def test_a_download_has_the_content_and_all_its_headers(cache: Cache, client: httpx.AsyncClient) -> None:
    given = new_entry("k", b"a,b\n1,2\n", name="dir/Börse.csv", encoding="utf-8")
    (entry,) = await cache.store_content(await cache.source(), [given], [b"a,b\n1,2\n"])
    answer = await client.get(f"/{entry.id}/content")
    assert (answer.status_code, answer.content) == (200, b"a,b\n1,2\n")
    expected = {
        "content-type": "text/csv; charset=utf-8",
        "content-length": "8",
        "content-disposition": "attachment; filename=\"B_rse.csv\"; filename*=UTF-8''B%C3%B6rse.csv",
        "etag": f'"{hash_of(b"a,b" + bytes([10]) + b"1,2" + bytes([10]))}"',
        "accept-ranges": "bytes",
        "x-content-type-options": "nosniff",
    }
    assert {name: answer.headers[name] for name in expected} == expected
    assert "last-modified" in answer.headers
    head = await client.head(f"/{entry.id.lower()}/content")
    assert (head.status_code, head.content) == (200, b"")
    assert {name: head.headers[name] for name in expected} == expected


async def test_html_from_a_source_is_not_served_as_html(cache: Cache, client: httpx.AsyncClient) -> None:
    given = new_entry("k", b"<script>", content_type="text/html; charset=utf-8", name="x.html")
    (entry,) = await cache.store_content(await cache.source(), [given], [b"<script>"])
    answer = await client.get(f"/{entry.id}/content")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment;")


@pytest.mark.parametrize(
    ("wanted", "body", "content_range"),
    [
        ("bytes=2-5", b"2345", "bytes 2-5/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
    ],
)
async def test_a_range_is_answered_with_exactly_its_bytes(
    cache: Cache, client: httpx.AsyncClient, wanted: str, body: bytes, content_range: str
) -> None:
    (entry,) = await cache.fetch(await cache.source(), b"0123456789")
    answer = await client.get(f"/{entry.id}/content", headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (206, body)
    assert answer.headers["content-range"] == content_range
    assert answer.headers["content-length"] == str(len(body))
    other = await client.get(f"/{entry.id}/content", headers={"Range": wanted, "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, b"0123456789")


async def test_a_range_after_the_end_is_refused_with_the_size(cache: Cache, client: httpx.AsyncClient) -> None:
    (entry,) = await cache.fetch(await cache.source(), b"0123456789")
    answer = await client.get(f"/{entry.id}/content", headers={"Range": "bytes=10-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */10"
    assert "10 bytes" in answer.json()["detail"]


async def test_content_that_the_client_already_has_is_not_sent_again(cache: Cache, client: httpx.AsyncClient) -> None:
    (entry,) = await cache.fetch(await cache.source(), b"known")
    first = await client.get(f"/{entry.id}/content")
    for header, name in (("If-None-Match", "etag"), ("If-Modified-Since", "last-modified")):
        again = await client.get(f"/{entry.id}/content", headers={header: first.headers[name]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]


async def test_large_content_arrives_unchanged(cache: Cache, client: httpx.AsyncClient) -> None:
    (entry,) = await cache.fetch(await cache.source(), LARGE)
    assert (await client.get(f"/{entry.id}/content")).content == LARGE
    part = (await client.get(f"/{entry.id}/content", headers={"Range": "bytes=5000000-15000000"})).content
    assert part == LARGE[5_000_000:15_000_001]


async def test_missing_content_and_unknown_entries_are_404(cache: Cache, client: httpx.AsyncClient) -> None:
    (entry,) = await cache.fetch(await cache.source(), b"gone")
    await client.delete("", params={"expired_only": True})  # Claims the store, while it has the content.
    cache.store.delete(hash_of(b"gone"))
    missing = await client.get(f"/{entry.id}/content")
    assert (missing.status_code, "next fetch" in missing.json()["detail"]) == (404, True)
    assert (await client.get("/01JH2M4Y1Q7W3V5K8T9R6P0N2B/content")).status_code == 404
    assert (await client.get("/a%00b/content")).status_code == 404


async def test_a_response_in_progress_completes_although_its_content_is_deleted(
    cache: Cache, client: httpx.AsyncClient
) -> None:
    (entry,) = await cache.fetch(await cache.source(), LARGE)
    async with client.stream("GET", f"/{entry.id}/content") as answer:
        chunks = answer.aiter_bytes(1000)
        begun = await anext(chunks)
        assert "1 entry" in (await client.delete("")).json()["message"]
        assert await cache.files() == set()
        assert begun + b"".join([chunk async for chunk in chunks]) == LARGE


async def test_remote_content_is_leased_while_it_is_read(s3_cache: Cache, s3_client: httpx.AsyncClient) -> None:
    (entry,) = await s3_cache.fetch(await s3_cache.source(), LARGE)
    async with s3_client.stream("GET", f"/{entry.id}/content") as answer:
        chunks = answer.aiter_bytes(1000)
        begun = await anext(chunks)
        assert (await s3_client.delete("")).json()["message"] == "1 entry and 0 bytes were removed."
        assert begun + b"".join([chunk async for chunk in chunks]) == LARGE
    await wait_until_no_leases(s3_cache)
    await s3_client.delete("")
    assert await s3_cache.files() == set()


@pytest.mark.parametrize("kind", ["local", "s3"])
async def test_a_client_that_disconnects_frees_file_and_lease(
    cache: Cache, database_url: str, kind: str, request: pytest.FixtureRequest
) -> None:
    cache = Cache(cache.sessions, request.getfixturevalue(f"{kind}_store"))
    (entry,) = await cache.fetch(await cache.source(), LARGE)
    path = cache.store.local_path(entry.content_hash)

    def is_open() -> bool:
        return any(file.path == str(path) for file in psutil.Process().open_files())

    async with serving(database_url, cache.store) as client:
        for _ in range(3):
            with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
                connection.sendall(f"GET {client.base_url.path}{entry.id}/content HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert connection.recv(1000).startswith(b"HTTP/1.1 200")
                assert is_open() is (path is not None)
        await asyncio.to_thread(wait_until, lambda: not is_open(), "the file to be closed", 10)
        await wait_until_no_leases(cache)


async def wait_until_no_leases(cache: Cache) -> None:
    for _ in range(100):
        async with cache.sessions() as session:
            if not await session.scalar(select(func.count()).select_from(CacheLease)):
                return
        await asyncio.sleep(0.1)
    raise AssertionError("a lease on content remains")


@pytest.mark.slow
async def test_an_unreachable_storage_is_503(
    s3_cache: Cache, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (entry,) = await s3_cache.fetch(await s3_cache.source(), b"out of reach")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    async with serving(database_url, BlobStore.from_settings(Settings(cache_url="s3://cache/x"))) as client:
        for answer in (await client.get(f"/{entry.id}/content"), await client.delete("")):
            assert answer.status_code == 503
            assert "retry-after" in answer.headers
        await wait_until_no_leases(s3_cache)
