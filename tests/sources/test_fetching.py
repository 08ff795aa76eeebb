"""One fetch from start to end: what is read, what is recorded, and what stays after a failure."""

import asyncio
import gzip
import hashlib
import io
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spine.egress.fetch_failure import FetchFailure
from spine.errors import Conflict
from spine.schemas import ErrorCategory
from spine.sources.readers.base import CHUNK

from tests.cache.test_store import small_files
from tests.sources.readers.support import settle
from tests.sources.support import Desk
from tests.support.receivers import receiver, refuse

ROWS = b"day,venue,shares\n2026-01-05,AAA,1\n2026-01-05,BBB,2\n"
MORE_ROWS = ROWS + b"2026-01-05,CCC,3\n"
BAD_ROWS = ROWS + b"2026-01-05,CCC,3,4\n2026-01-05,DDD,5\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def long_rows() -> bytes:
    """A file that is read quickly and takes many seconds to parse."""
    return gzip.compress(b"<rows>" + b"<row><day>2026-01-05</day></row>" * 2_000_000 + b"</rows>", 1)


async def test_a_fetch_records_hash_bytes_rows_and_trigger(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv"})
    fetched = await desk.fetch(name)
    assert (fetched.status, fetched.error) == ("SUCCESS", None)
    assert (fetched.content_hash, fetched.capture_id) == (sha256(ROWS), sha256(ROWS))
    assert (fetched.bytes_fetched, fetched.rows_parsed, fetched.content_changed) == (len(ROWS), 2, True)
    assert (fetched.trigger, fetched.triggered_by, fetched.execution_id) == ("MANUAL", "tests", "here:1")
    assert fetched.etag is not None
    assert fetched.last_modified is not None
    assert await desk.content(name) == [ROWS]
    source = await desk.source(name)
    assert (source.last_fetch_status, source.last_content_hash, source.total_fetches) == ("SUCCESS", sha256(ROWS), 1)
    assert source.last_fetch_at is not None
    assert source.claimed_by is None


async def test_unchanged_content_is_not_read_again_unless_forced(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv"})
    first = await desk.fetch(name)
    again = await desk.fetch(name)
    assert (again.status, again.content_changed, again.bytes_fetched, again.rows_parsed) == ("SUCCESS", False, 0, 2)
    assert (again.content_hash, again.etag) == (first.content_hash, first.etag)
    forced = await desk.fetch(name, force=True)
    assert (forced.status, forced.content_changed, forced.bytes_fetched) == ("SUCCESS", False, len(ROWS))


async def test_a_change_is_found(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv"})
    await desk.fetch(name)
    desk.file("trades.csv", MORE_ROWS)
    changed = await desk.fetch(name)
    assert (changed.content_changed, changed.rows_parsed, changed.content_hash) == (True, 3, sha256(MORE_ROWS))
    assert await desk.content(name) == [MORE_ROWS]


async def test_content_that_is_missing_in_the_cache_is_read_again(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv"})
    await desk.fetch(name)
    desk.context.store.delete(sha256(ROWS))
    assert (await desk.fetch(name)).bytes_fetched == len(ROWS)
    assert await desk.content(name) == [ROWS]


async def test_after_a_change_of_the_configuration_content_is_read_again(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv"})
    await desk.fetch(name)
    await desk.update(name, parser_config={"has_header": False})
    fetched = await desk.fetch(name)
    assert (fetched.bytes_fetched, fetched.rows_parsed) == (len(ROWS), 3)


async def test_bad_rows_make_a_fetch_partial_and_are_listed_with_line_and_reason(desk: Desk) -> None:
    settle(desk.file("trades.csv", BAD_ROWS))
    name = await desk.register("file", {"path": "trades.csv"}, parser_config={"max_bad_fraction": 0.25})
    fetched = await desk.fetch(name)
    assert (fetched.status, fetched.rows_parsed, fetched.bad_rows, fetched.error) == ("PARTIAL", 3, 1, None)
    (bad,) = fetched.bad_row_examples
    assert (bad.file, bad.line) == ("trades.csv", 4)
    assert "4" in bad.reason
    again = await desk.fetch(name)
    assert (again.status, again.bad_rows, again.bytes_fetched) == ("PARTIAL", 1, 0)


async def test_all_bad_rows_of_many_files_are_counted_and_the_first_are_listed(desk: Desk) -> None:
    for file in ("a.csv", "b.csv", "c.csv"):
        settle(desk.file(file, ROWS + b"1\n" * 15))
    name = await desk.register("file", {"path": "*.csv"}, parser_config={"max_bad_fraction": 0.9})
    fetched = await desk.fetch(name)
    assert (fetched.status, fetched.bad_rows) == ("PARTIAL", 45)
    assert [bad.file for bad in fetched.bad_row_examples] == ["a.csv"] * 15 + ["b.csv"] * 5


async def test_content_that_cannot_be_parsed_fails_and_the_cache_keeps_the_last_good_content(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv", "cache_ttl_seconds": 60})
    await desk.fetch(name)
    desk.file("trades.csv", b"\xff\xfe\xfa,\x00\n" * 3)
    fetched = await desk.fetch(name)
    assert (fetched.status, fetched.error_category, fetched.content_hash) == ("FAILED", "PARSE", None)
    assert fetched.error
    assert await desk.content(name) == [ROWS]
    assert desk.stray_files() == []
    source = await desk.source(name)
    assert (source.last_content_hash, source.consecutive_failures) == (sha256(ROWS), 1)


async def test_a_failure_raises_an_alert_and_the_next_success_ends_the_streak(desk: Desk) -> None:
    name = await desk.register("file", {"path": "late.csv"}, domain="desk.rates")
    for failures in (1, 2):
        fetched = await desk.fetch(name)
        assert (fetched.status, fetched.error_category) == ("FAILED", "SOURCE")
        assert (await desk.source(name)).consecutive_failures == failures
    alerts = await desk.alerts(name)
    assert [(alert.severity, alert.domain, alert.error_category) for alert in alerts] == [
        ("ERROR", "desk.rates", "SOURCE")
    ]
    settle(desk.file("late.csv", ROWS))
    await desk.fetch(name)
    source = await desk.source(name)
    assert (source.consecutive_failures, source.total_fetches, source.good_fetches) == (0, 3, 1)
    assert all(alert.resolved_at is not None for alert in await desk.alerts(name))


async def test_a_pattern_is_one_fetch_with_an_entry_for_each_file(desk: Desk) -> None:
    settle(desk.file("b.csv", ROWS), desk.file("a.csv", MORE_ROWS))
    name = await desk.register("file", {"path": "*.csv"})
    fetched = await desk.fetch(name)
    assert (fetched.rows_parsed, fetched.bytes_fetched) == (5, len(ROWS + MORE_ROWS))
    entries = await desk.entries(name)
    assert [entry.name for entry in entries] == ["a.csv", "b.csv"]
    lines = "".join(f"{entry.content_hash}  {entry.key}\n" for entry in entries)
    assert fetched.content_hash == sha256(lines.encode())

    settle(desk.file("c.csv", ROWS))
    (desk.root / "a.csv").unlink()
    changed = await desk.fetch(name)
    assert (changed.content_changed, changed.rows_parsed, changed.bytes_fetched) == (True, 4, len(ROWS))
    assert [entry.name for entry in await desk.entries(name)] == ["b.csv", "c.csv"]


async def test_one_file_of_a_pattern_that_does_not_parse_changes_nothing(desk: Desk) -> None:
    settle(desk.file("a.csv", ROWS), desk.file("b.csv", ROWS))
    name = await desk.register("file", {"path": "*.csv"})
    await desk.fetch(name)
    settle(desk.file("a.csv", MORE_ROWS), desk.file("c.csv", b"\xff\xfe\xfa,\x00\n" * 3))
    os.utime(desk.root / "a.csv", (1_700_000_001, 1_700_000_001))
    assert (await desk.fetch(name)).status == "FAILED"
    assert await desk.content(name) == [ROWS, ROWS]


async def test_equal_content_of_two_sources_is_stored_once(desk: Desk) -> None:
    settle(desk.file("a.csv", ROWS), desk.file("b.csv", ROWS))
    for file in ("a.csv", "b.csv"):
        name = await desk.register("file", {"path": file})
        await desk.fetch(name)
    assert [blob for blob, _ in desk.context.store.list()] == [sha256(ROWS)]


async def test_content_of_an_unknown_format_is_stored_without_a_row_count(desk: Desk) -> None:
    settle(desk.file("blob.bin", b"\x00\x01" * 10))
    name = await desk.register("file", {"path": "blob.bin"})
    fetched = await desk.fetch(name)
    assert (fetched.status, fetched.rows_parsed, fetched.bytes_fetched) == ("SUCCESS", None, 20)


async def test_a_fetch_beyond_max_bytes_fails_and_leaves_nothing_behind(desk: Desk) -> None:
    with receiver() as site:
        site.always = refuse(200, b"x" * (3 * CHUNK))
        small = await desk.register("http", {"url": f"http://127.0.0.1:{site.port}/a.bin", "max_bytes": CHUNK})
        fetched = await desk.fetch(small)
    assert (fetched.status, fetched.error_category) == ("FAILED", "SOURCE")
    assert "max_bytes" in (fetched.error or "")
    assert desk.stray_files() == []
    assert list(desk.context.store.list()) == []


async def test_the_timeout_of_a_source_also_limits_parsing(desk: Desk) -> None:
    settle(desk.file("trades.xml.gz", long_rows()))
    name = await desk.register("file", {"path": "trades.xml.gz", "timeout_seconds": 0.7})
    began = time.monotonic()
    fetched = await desk.fetch(name)
    assert time.monotonic() - began < 4
    assert (fetched.status, fetched.error_category) == ("FAILED", "SOURCE")
    assert "0.7 s that timeout_seconds allows" in (fetched.error or "")
    assert desk.stray_files() == []


@pytest.mark.slow
async def test_a_fetch_that_is_cancelled_while_it_parses_ends_soon(desk: Desk) -> None:
    settle(desk.file("trades.xml.gz", long_rows()))
    started = await desk.start(await desk.register("file", {"path": "trades.xml.gz"}))
    fetching = asyncio.create_task(desk.run(started))
    await asyncio.sleep(0.7)
    began = time.monotonic()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert time.monotonic() - began < 3
    assert desk.stray_files() == []


async def test_a_disk_that_is_full_during_parsing_is_a_storage_error(desk: Desk) -> None:
    expanded = io.BytesIO()
    pq.write_table(pa.table({"day": ["2026-01-05"] * 1_000_000}), expanded, compression="none", use_dictionary=False)
    settle(desk.file("trades.parquet.gz", gzip.compress(expanded.getvalue())))
    started = await desk.start(await desk.register("file", {"path": "trades.parquet.gz"}))
    with small_files(8_000_000), pytest.raises(FetchFailure) as failed:
        await desk.run(started)
    assert (failed.value.category, failed.value.transient) == (ErrorCategory.STORAGE, True)
    assert desk.stray_files() == []


async def test_a_304_is_a_success_with_zero_bytes(desk: Desk) -> None:
    with receiver() as site:
        url = f"http://127.0.0.1:{site.port}/trades.csv"
        name = await desk.register("http", {"url": url})
        site.behaviours = [refuse(200, ROWS, ETag='"v1"'), refuse(304, b"")]
        first, second = await desk.fetch(name), await desk.fetch(name)
        assert site.requests[1].headers["If-None-Match"] == '"v1"'
    assert (first.etag, first.bytes_fetched) == ('"v1"', len(ROWS))
    assert (second.status, second.content_changed, second.bytes_fetched, second.etag) == ("SUCCESS", False, 0, '"v1"')


async def test_secrets_of_a_source_are_never_stored(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPINE_SECRET_FEED_TOKEN", "s3cr3t-token-of-feed")
    with receiver() as site:
        url = f"http://127.0.0.1:{site.port}/trades.csv?key=s3cr3t-in-query"
        auth = {"type": "bearer", "token_ref": "env:SPINE_SECRET_FEED_TOKEN"}
        name = await desk.register("http", {"url": url, "auth": auth, "headers": {"X-Desk": "s3cr3t-header"}})
        site.behaviours = [refuse(500, b"s3cr3t-token-of-feed"), refuse(200, ROWS)]
        failed, good = await desk.fetch(name), await desk.fetch(name)
        assert site.requests[1].headers["Authorization"] == "Bearer s3cr3t-token-of-feed"
        assert "s3cr3t-in-query" in site.requests[1].path
    shown = [failed.model_dump_json(), good.model_dump_json(), (await desk.registry.read(name)).model_dump_json()]
    shown += [str(entry) for entry in await desk.entries(name)]
    shown += [f"{alert.title} {alert.message} {alert.details}" for alert in await desk.alerts(name)]
    assert not [text for text in shown if "s3cr3t" in text]


async def test_a_missing_secret_is_a_configuration_error(desk: Desk) -> None:
    auth = {"type": "bearer", "token_ref": "env:SPINE_SECRET_NOT_SET_ANYWHERE"}
    name = await desk.register("http", {"url": "http://127.0.0.1:9/x", "auth": auth})
    fetched = await desk.fetch(name)
    assert (fetched.status, fetched.error_category) == ("FAILED", "CONFIG")
    assert "SPINE_SECRET_NOT_SET_ANYWHERE" in (fetched.error or "")


async def test_a_disabled_source_is_not_fetched(desk: Desk) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv"}, enabled=False)
    with pytest.raises(Conflict, match="disabled"):
        await desk.start(name)
    assert (await desk.source(name)).total_fetches == 0


async def test_a_cache_that_cannot_be_written_is_a_storage_error(desk: Desk, tmp_path: Path) -> None:
    settle(desk.file("trades.csv", ROWS))
    name = await desk.register("file", {"path": "trades.csv"})
    (desk.context.settings.home / "cache").write_text("a file where a folder belongs")
    fetched = await desk.fetch(name)
    assert (fetched.status, fetched.error_category) == ("FAILED", "STORAGE")
