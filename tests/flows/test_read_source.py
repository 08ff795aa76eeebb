"""`read_source` in real flow runs: the right bytes, fetched when they are stale, and a record of who used them."""

import hashlib
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from prefect import flow, runtime, task
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_LOCAL_STORAGE_PATH, temporary_settings
from prefect.testing.utilities import prefect_test_harness
from sqlalchemy import select, update

from api.cache.store import BlobStore
from api.cache.tables import CacheEntry, CacheHold
from api.db.base import utc_now
from api.db.engine import make_engine, make_sessions
from api.db.migrate import upgrade
from api.errors import Conflict, NotFound
from api.settings import Settings
from api.sources.failure import FetchFailure
from api.sources.fetching.workshop import Workshop
from api.sources.schemas import FetchDetail
from api.sources.tables import Fetch
from flows.sources import SourceContent, aread_source, read_source
from tests.cache.conftest import AWS, moto
from tests.sources.reading.support import settle
from tests.sources.support import NO_PREFECT, Desk
from tests.support.processes import free_port
from tests.support.receivers import Receiver, receiver, refuse

ROWS = b"day,venue,shares\n2026-01-05,AAA,1\n2026-01-05,BBB,2\n"
MORE_ROWS = ROWS + b"2026-01-05,CCC,3\n"
BAD_ROWS = ROWS + b"2026-01-05,CCC,3,4\n2026-01-05,DDD,5\n"
AT_ONCE = timedelta(0)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A server of its own: a client's threads wait for minutes at their end when theirs is gone before them."""
    settings = {
        PREFECT_LOCAL_STORAGE_PATH: tmp_path_factory.mktemp("results"),
        # Else each run ends by waiting up to a second for the thread that says that it is alive.
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with prefect_test_harness(server_startup_timeout=120), temporary_settings(settings):
        yield


@pytest.fixture
def home(prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a worker finds in its environment."""
    for name in [name for name in os.environ if name.startswith("SPINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SPINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SPINE_FILE_ROOTS", str(tmp_path / "files"))
    monkeypatch.setenv("SPINE_ALLOW_PRIVATE_ADDRESSES", "true")
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@asynccontextmanager
async def desk_of_flows() -> AsyncIterator[Desk]:
    """A desk on the database and the cache that flows find in the environment."""
    settings = Settings()
    upgrade(settings.sqlalchemy_url)
    engine = make_engine(settings.sqlalchemy_url)
    yield Desk(Workshop(settings, make_sessions(engine), NO_PREFECT, BlobStore.of(settings)), settings.file_roots[0])
    await engine.dispose()


@pytest.fixture
async def desk(home: Path) -> AsyncIterator[Desk]:
    async with desk_of_flows() as made:
        yield made


@pytest.fixture
def site() -> Iterator[Receiver]:
    with receiver() as started:
        started.always = refuse(200, ROWS, ETag='"v1"')
        yield started


def url_of(site: Receiver) -> str:
    return f"http://127.0.0.1:{site.port}/trades.csv"


@flow(name="tests.uses_a_source", persist_result=False)
def use(source: str, max_age: timedelta | None = None) -> tuple[str, SourceContent]:
    return str(runtime.flow_run.id), read_source(source, max_age=max_age)


@task(persist_result=False)
def read_in_a_task(source: str) -> SourceContent:
    return read_source(source)


async def fetches(desk: Desk, name: str) -> list[FetchDetail]:
    """All fetches of a source, oldest first."""
    source = await desk.source(name)
    async with desk.shop.sessions() as session:
        ids = (await session.scalars(select(Fetch.id).where(Fetch.source_id == source.id).order_by(Fetch.id))).all()
    return [await desk.read_fetch(fetch_id) for fetch_id in ids]


async def holds(desk: Desk) -> list[str]:
    async with desk.shop.sessions() as session:
        return list((await session.scalars(select(CacheHold.holder))).all())


async def test_a_run_gets_the_content_its_hash_and_is_on_record_as_its_user(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv"})
    run_id, content = use(name)
    assert content.path.read_bytes() == ROWS
    assert (content.path.name, content.source, content.capture_id) == ("trades.csv", name, sha256(ROWS))
    (fetched,) = await fetches(desk, name)
    assert (fetched.id, fetched.status, fetched.trigger) == (content.fetch_id, "SUCCESS", "DEPENDENCY")
    assert (fetched.used_by_runs, fetched.capture_id) == ([run_id], content.capture_id)
    # The fetch is a run of its own.
    assert fetched.run_id not in (None, run_id)
    assert await holds(desk) == []


async def test_a_source_is_found_by_its_id_in_a_task_and_in_a_coroutine_too(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv", "cache_ttl_seconds": 600})
    source_id = (await desk.source(name)).id

    @flow(persist_result=False)
    async def use_in_all_ways() -> list[SourceContent]:
        return [read_in_a_task(source_id), read_source(source_id.lower()), await aread_source(name)]

    contents = await use_in_all_ways()
    (fetched,) = await fetches(desk, name)
    assert [(one.fetch_id, one.capture_id) for one in contents] == [(fetched.id, sha256(ROWS))] * 3
    assert len(fetched.used_by_runs) == 1
    assert contents[-1].path.read_bytes() == ROWS


async def test_a_fresh_source_is_not_fetched_again_unless_it_is_too_old_for_the_run(desk: Desk, site: Receiver) -> None:
    name = await desk.register("http", {"url": url_of(site), "cache_ttl_seconds": 600})
    runs = [use(name)[0], use(name)[0], use(name, timedelta(minutes=5))[0]]
    assert len(site.requests) == 1
    (fetched,) = await fetches(desk, name)
    assert sorted(fetched.used_by_runs) == sorted(runs)

    site.behaviours = [refuse(200, MORE_ROWS, ETag='"v2"')]
    run_id, content = use(name, AT_ONCE)
    assert (content.path.read_bytes(), content.capture_id) == (MORE_ROWS, sha256(MORE_ROWS))
    assert len(site.requests) == 2
    _, newer = await fetches(desk, name)
    assert (newer.id, newer.used_by_runs) == (content.fetch_id, [run_id])


async def test_a_source_is_fetched_again_when_its_time_to_live_is_over(desk: Desk, site: Receiver) -> None:
    name = await desk.register("http", {"url": url_of(site), "cache_ttl_seconds": 600})
    use(name)
    site.behaviours = [refuse(200, MORE_ROWS, ETag='"v2"')]
    async with desk.shop.sessions.begin() as session:
        await session.execute(update(CacheEntry).values(expires_at=utc_now() - timedelta(seconds=1)))
    # A run that is content with what is older takes it as it is.
    assert use(name, timedelta(hours=1))[1].capture_id == sha256(ROWS)
    assert len(site.requests) == 1
    assert use(name)[1].capture_id == sha256(MORE_ROWS)
    assert len(site.requests) == 2
    # It lives anew.
    assert use(name)[1].capture_id == sha256(MORE_ROWS)
    assert len(site.requests) == 2


async def test_a_source_without_time_to_live_is_asked_each_time_and_not_downloaded_again(
    desk: Desk, site: Receiver
) -> None:
    name = await desk.register("http", {"url": url_of(site)})
    first = use(name)[1]
    site.always = refuse(304)
    run_id, again = use(name)
    assert site.requests[1].headers["If-None-Match"] == '"v1"'
    assert (again.capture_id, again.path.read_bytes()) == (first.capture_id, ROWS)
    _, asked = await fetches(desk, name)
    assert (asked.id, asked.bytes_fetched, asked.content_changed) == (again.fetch_id, 0, False)
    assert asked.used_by_runs == [run_id]


async def test_content_that_the_cache_has_lost_is_fetched_although_it_is_fresh(desk: Desk, site: Receiver) -> None:
    name = await desk.register("http", {"url": url_of(site), "cache_ttl_seconds": 600})
    use(name)
    desk.shop.store.delete(sha256(ROWS))
    assert use(name)[1].path.read_bytes() == ROWS
    assert len(site.requests) == 2


async def test_the_good_rows_come_as_a_table_under_the_sources_parser_config(desk: Desk) -> None:
    settle(desk.file("trades.csv", BAD_ROWS))
    name = await desk.register("file", {"path": "trades.csv"}, parser_config={"columns": {"shares": "integer"}})
    table = use(name)[1].to_arrow()
    assert table.column_names == ["day", "venue", "shares"]
    assert table["venue"].to_pylist() == ["AAA", "BBB", "DDD"]
    assert table["shares"].to_pylist() == [1, 2, 5]


async def test_a_pattern_gives_all_files_in_the_order_of_the_source(desk: Desk) -> None:
    settle(desk.file("b/trades.csv", MORE_ROWS), desk.file("a/trades.csv", ROWS), desk.file("c/trades.csv", ROWS))
    name = await desk.register("file", {"path": "*/trades.csv", "cache_ttl_seconds": 600})
    for _ in range(2):
        content = use(name)[1]
        assert [path.read_bytes() for path in content.paths] == [ROWS, MORE_ROWS, ROWS]
        assert [path.name for path in content.paths] == ["trades.csv"] * 3
        assert list(content.paths) == sorted(content.paths)
    assert content.capture_id == (await fetches(desk, name))[0].content_hash
    assert content.to_arrow()["shares"].to_pylist() == [1, 2, 1, 2, 3, 1, 2]
    with pytest.raises(ValueError, match=f"{name} has 3 files"):
        _ = content.path


async def test_a_source_that_nobody_knows_is_not_found(desk: Desk) -> None:
    with pytest.raises(NotFound, match="no-such-source"):
        use("no-such-source")


async def test_a_disabled_source_can_be_used_while_it_is_fresh_and_not_afterwards(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv", "cache_ttl_seconds": 600})
    use(name)
    await desk.update(name, enabled=False)
    assert use(name)[1].path.read_bytes() == ROWS
    with pytest.raises(Conflict, match=f"{name}.* is disabled"):
        use(name, AT_ONCE)
    assert len(await fetches(desk, name)) == 1


async def test_a_source_that_cannot_be_fetched_fails_the_run_and_stale_content_is_not_handed_out(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv"})
    use(name)
    (desk.root / "trades.csv").unlink()
    with pytest.raises(FetchFailure) as failed:
        use(name)
    _, fetched = await fetches(desk, name)
    assert (fetched.status, fetched.error, fetched.used_by_runs) == ("FAILED", failed.value.sentence, [])


async def test_what_a_run_does_with_its_files_is_nothing_to_the_cache_nor_the_other_way_round(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv", "cache_ttl_seconds": 600})
    (run_id, mine), (_, others) = use(name), use(name)
    assert mine.path != others.path
    assert mine.path.is_relative_to(desk.shop.settings.home / "staging" / run_id)
    assert stat.S_IMODE(mine.path.stat().st_mode) == 0o400
    mine.path.unlink()
    assert await desk.content(name) == [ROWS]
    assert others.path.read_bytes() == ROWS
    desk.shop.store.delete(sha256(ROWS))
    assert others.path.read_bytes() == ROWS


async def test_a_cache_on_s3_serves_the_same_content(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Receiver
) -> None:
    with moto(free_port(), tmp_path / "moto.log") as s3_url:
        for name, value in {**AWS, "AWS_ENDPOINT_URL": s3_url}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SPINE_CACHE_URL", f"s3://cache/{uuid4().hex}")
        async with desk_of_flows() as desk:
            source = await desk.register("http", {"url": url_of(site), "cache_ttl_seconds": 600})
            for _ in range(2):
                content = use(source)[1]
                assert (content.path.read_bytes(), content.capture_id) == (ROWS, sha256(ROWS))
                assert stat.S_IMODE(content.path.stat().st_mode) == 0o400
            assert len(site.requests) == 1
            content.path.unlink()
            assert await desk.content(source) == [ROWS]
            assert [blob for blob, _ in desk.shop.store.list()] == [sha256(ROWS)]
            assert await holds(desk) == []
    assert not (home / "cache").exists()
