"""`read_source` in real flow runs: the right bytes, fetched when they are stale, and a record of their use."""

import gzip
import stat
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from prefect import flow
from spine.egress.fetch_failure import FetchFailure
from spine.errors import Conflict, NotFound
from spine.flows.read_source import SourceContent, aread_source, read_source
from spine.tables.base import utc_now
from spine.tables.cache import CacheEntry
from sqlalchemy import update

from tests.cache.conftest import AWS
from tests.flows.support import (
    AT_ONCE,
    BAD_ROWS,
    MORE_ROWS,
    ROWS,
    desk_of_flows,
    fetches,
    holds,
    read_in_a_task,
    sha256,
    url_of,
    use,
)
from tests.sources.readers.support import settle
from tests.sources.support import Desk
from tests.support.receivers import Receiver, refuse


async def test_a_run_gets_the_content_and_its_hash_and_its_use_is_recorded(desk: Desk) -> None:
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


async def test_read_source_works_by_id_in_a_task_and_in_a_coroutine(desk: Desk) -> None:
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
    async with desk.context.sessions.begin() as session:
        await session.execute(update(CacheEntry).values(expires_at=utc_now() - timedelta(seconds=1)))
    # A run that accepts older content uses it without a fetch.
    assert use(name, timedelta(hours=1))[1].capture_id == sha256(ROWS)
    assert len(site.requests) == 1
    assert use(name)[1].capture_id == sha256(MORE_ROWS)
    assert len(site.requests) == 2
    # It is fresh again.
    assert use(name)[1].capture_id == sha256(MORE_ROWS)
    assert len(site.requests) == 2


@pytest.mark.slow
async def test_a_source_without_a_time_to_live_is_checked_each_time_and_not_downloaded_again(
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


@pytest.mark.slow
async def test_content_that_is_missing_in_the_cache_is_fetched_although_it_is_fresh(desk: Desk, site: Receiver) -> None:
    name = await desk.register("http", {"url": url_of(site), "cache_ttl_seconds": 600})
    use(name)
    desk.context.store.delete(sha256(ROWS))
    assert use(name)[1].path.read_bytes() == ROWS
    assert len(site.requests) == 2


async def test_the_valid_rows_are_a_table_parsed_with_the_sources_parser_config(desk: Desk) -> None:
    settle(desk.file("trades.csv", BAD_ROWS))
    config = {"columns": {"shares": "integer"}, "max_bad_fraction": 0.25}
    name = await desk.register("file", {"path": "trades.csv"}, parser_config=config)
    table = use(name)[1].to_arrow()
    assert table.column_names == ["day", "venue", "shares"]
    assert table["venue"].to_pylist() == ["AAA", "BBB", "DDD"]
    assert table["shares"].to_pylist() == [1, 2, 5]


async def test_a_table_is_read_in_the_charset_that_the_source_reported(desk: Desk, site: Receiver) -> None:
    site.always = refuse(200, "id,city\n1,Zürich\n".encode("latin-1"), Content_Type="text/csv; charset=latin-1")
    name = await desk.register("http", {"url": url_of(site)})
    assert use(name)[1].to_arrow().to_pydict() == {"id": [1], "city": ["Zürich"]}


async def test_a_table_of_a_pattern_reads_each_file_as_the_fetch_did(desk: Desk) -> None:
    rows = [b"id\n1\n", gzip.compress(b"id\n2\n"), b'{"id": 3}\n']
    settle(*(desk.file(name, content) for name, content in zip(("1.csv", "2.csv.gz", "3.jsonl"), rows, strict=True)))
    name = await desk.register("file", {"path": "*"})
    content = use(name)[1]
    assert content.to_arrow()["id"].to_pylist() == [1, 2, 3]
    assert [one.rows_parsed for one in await fetches(desk, name)] == [3]


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


async def test_an_unknown_source_is_not_found(desk: Desk) -> None:
    with pytest.raises(NotFound, match="no-such-source"):
        use("no-such-source")


@pytest.mark.slow
async def test_a_disabled_source_can_be_used_while_it_is_fresh_and_not_afterwards(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv", "cache_ttl_seconds": 600})
    use(name)
    await desk.update(name, enabled=False)
    assert use(name)[1].path.read_bytes() == ROWS
    with pytest.raises(Conflict, match=f"{name}.* is disabled"):
        use(name, AT_ONCE)
    assert len(await fetches(desk, name)) == 1


async def test_a_source_that_cannot_be_fetched_fails_the_run_instead_of_returning_stale_content(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv"})
    use(name)
    (desk.root / "trades.csv").unlink()
    with pytest.raises(FetchFailure) as failed:
        use(name)
    _, fetched = await fetches(desk, name)
    assert (fetched.status, fetched.error, fetched.used_by_runs) == ("FAILED", failed.value.sentence, [])


async def test_the_files_of_a_run_and_the_cache_are_independent(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv", "cache_ttl_seconds": 600})
    (run_id, mine), (_, others) = use(name), use(name)
    assert mine.path != others.path
    assert mine.path.is_relative_to(desk.context.settings.home / "staging" / run_id)
    assert stat.S_IMODE(mine.path.stat().st_mode) == 0o400
    mine.path.unlink()
    assert await desk.content(name) == [ROWS]
    assert others.path.read_bytes() == ROWS
    desk.context.store.delete(sha256(ROWS))
    assert others.path.read_bytes() == ROWS


@pytest.mark.slow
async def test_a_cache_on_s3_serves_the_same_content(
    home: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch, site: Receiver
) -> None:
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
        assert [blob for blob, _ in desk.context.store.list()] == [sha256(ROWS)]
        assert await holds(desk) == []
    assert not (home / "cache").exists()
