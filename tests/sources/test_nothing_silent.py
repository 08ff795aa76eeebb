"""Fetches that must not be green: pages in place of data, too many invalid rows, and files that are empty."""

import gzip
import io
import zipfile
from decimal import Decimal
from typing import Any

import pytest
from spine.sources.fetching.content import ContentFile, Format

from tests.sources.readers.support import settle
from tests.sources.support import Desk
from tests.support.receivers import receiver, refuse
from tests.support.variants import one_in

ROWS = b"day,venue,shares\n2026-01-05,AAA,1\n2026-01-05,BBB,2\n"
LOGIN = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in</body></html>\n"


@pytest.fixture
def database() -> None:
    """SQLite: these tests are about content and results, not about databases."""


async def fetch_from_server(desk: Desk, body: bytes, content_type: str, **fields: Any) -> tuple[str, str | None, str]:
    """Fetch what a server sends; the status, the category and the reason."""
    with receiver() as site:
        site.always = refuse(200, body, **{"Content-Type": content_type})
        name = await desk.register("http", {"url": f"http://127.0.0.1:{site.port}/data"}, **fields)
        fetched = await desk.fetch(name)
    return fetched.status, fetched.error_category, fetched.error or ""


@pytest.mark.parametrize(
    ("parser", "body", "content_type", "found"),
    one_in(
        4,
        [
            ("csv", LOGIN, "text/html", "text/html, as the server says,"),
            ("csv", LOGIN, "text/csv", "an HTML document"),
            ("json", LOGIN, "application/json", "an HTML document"),
            ("jsonl", LOGIN, "application/json", "an HTML document"),
            ("xml", LOGIN, "text/xml", "an HTML document"),
            ("parquet", LOGIN, "application/octet-stream", "an HTML document"),
            ("psv", b"Please sign in", "text/html; charset=utf-8", "text/html, as the server says,"),
            ("csv", b"a,b\n1,2\n", "application/xhtml+xml", "application/xhtml+xml, as the server says,"),
            ("csv", b"\xef\xbb\xbf\r\n  <!-- x --> <HTML lang='en'>", "text/csv", "an HTML document"),
            ("csv", "\ufeff<html>".encode("utf-16-le"), "text/csv", "an HTML document"),
            ("csv", b"<?xml version='1.0'?><!DOCTYPE html PUBLIC 'x'><html>", "text/csv", "an HTML document"),
            ("csv", b"<h1>403 Forbidden</h1>", "text/plain", "an HTML document"),
            ("tsv", gzip.compress(LOGIN, mtime=0), "application/gzip", "an HTML document"),
            ("csv", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "text/csv", "an XML document"),
            ("csv", b"<Error><Code>AccessDenied</Code></Error>", "text/csv", "an XML document"),
            ("json", b"<Error><Code>AccessDenied</Code></Error>", "text/csv", "an XML document"),
            ("csv", b'{"error": "unauthorized", "code": 401}', "text/csv", "a JSON document"),
            ("csv", b'{\n  "error": {"message": "rate limit"}\n}\n', "text/csv", "a JSON document"),
            ("csv", b'[{"a": 1}, {"a": 2}]', "text/csv", "a JSON document"),
            ("csv", b'{"a": 1}\n{"a": 2}\n', "text/csv", "a JSON document"),
            ("csv", b'[{"a": 1}' + b', {"a": 2}' * 20_000 + b"]", "text/csv", "a JSON document"),
            ("xml", b'{"error": "unauthorized"}', "text/xml", "a JSON document"),
            ("parquet", b'{"error": "unauthorized"}', "text/xml", "a JSON document"),
            ("json", b'{"error": "unauthorized", "code": 401}', "application/json", "an error message"),
            ("json", b'{"success": false, "errors": [{"code": 9}]}', "application/json", "an error message"),
            (
                "json",
                b'{"Note": "Thank you for using our API! The limit is 5 calls."}',
                "text/json",
                "an error message",
            ),
            ("json", b'{"type": "about:blank", "status": 403, "detail": "no"}', "text/json", "an error message"),
            ("jsonl", b'{"error": {"message": "rate limit"}}\n', "text/json", "an error message"),
            ("xml", b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>", "text/xml", "an error message"),
            ("xml", b"<o:ExceptionReport xmlns:o='x'><o:Exception/></o:ExceptionReport>", "a/b", "an error message"),
            ("xml", b"<s:Envelope xmlns:s='x'><s:Body>\n<s:Fault/></s:Body></s:Envelope>", "a/b", "an error message"),
        ],
    ),
)
async def test_another_document_in_place_of_data_fails_the_fetch(
    desk: Desk, parser: str, body: bytes, content_type: str, found: str
) -> None:
    status, category, error = await fetch_from_server(desk, body, content_type, parser_type=parser)
    assert (status, category) == ("FAILED", "SOURCE")
    assert f"data is {found}" in error


@pytest.mark.parametrize(
    ("parser", "body", "config"),
    one_in(
        3,
        [
            ("csv", b"<TICKER>,<PER>,<DATE>\nA,D,20261127\n", {}),
            ("csv", b"{id},[name]\n1,x\n", {}),
            ("csv", b"<b>,x\n1,<html>\n", {}),
            ("csv", b'"<html>",x\n1,2\n', {}),
            ("csv", b"Trade Date,Error,Price Limit.\n2026-11-27,0.1,5\n", {}),
            ("csv", b"Error Code\n" + b"17\n" * 30, {}),
            ("json", b'[{"a": "<html>"}]', {}),
            ("json", b'[{"error": "x"}]', {}),
            ("json", b'{"error": null, "data": [1]}', {}),
            ("json", b'{"error": 0.25, "title": "drift"}', {}),
            ("json", b'{"id": 7, "message": "hello"}', {}),
            ("json", b'{"error": "x"}', {"required_columns": ["error"]}),
            ("xml", b"<table><title>1</title></table>", {}),
            ("xml", b"<!-- by hand --><rows><p>1</p></rows>", {}),
            ("xml", b"<errors><error>1</error></errors>", {"row_tag": "error"}),
        ],
    ),
)
async def test_data_that_looks_a_little_like_another_document_is_read(
    desk: Desk, parser: str, body: bytes, config: dict[str, Any]
) -> None:
    got = await fetch_from_server(desk, body, "text/plain", parser_type=parser, parser_config=config)
    assert got == ("SUCCESS", None, "")


@pytest.mark.parametrize(
    ("body", "category", "reason"),
    one_in(
        3,
        [
            (b"Access denied\n", "PARSE", "only the line 'Access denied'"),
            (b"null\n", "PARSE", "only the line 'null'"),
            (b"Access denied, please log in\n", "PARSE", "only the line 'Access denied, please log in'"),
            (b"Sorry, we are closed.\n", "PARSE", "only the line 'Sorry, we are closed.'"),
            (b"Service Unavailable\n\nPlease try later\n", "PARSE", "begins with the line 'Service Unavailable'"),
            (b"[]", "SOURCE", "a JSON document"),
            (b"{}\n", "SOURCE", "a JSON document"),
            (b"[1,2,3]", "SOURCE", "a JSON document"),
        ],
    ),
)
async def test_a_message_in_place_of_data_fails_the_fetch(desk: Desk, body: bytes, category: str, reason: str) -> None:
    found = await fetch_from_server(desk, body, "text/csv", parser_type="csv")
    assert found[:2] == ("FAILED", category)
    assert reason in found[2]


@pytest.mark.parametrize("config", [{"columns": {"trade date": "string"}}, {"required_columns": ["trade date"]}])
async def test_the_header_of_one_column_is_no_message_if_it_is_configured(desk: Desk, config: dict[str, Any]) -> None:
    got = await fetch_from_server(desk, b"trade date\n", "text/csv", parser_type="csv", parser_config=config)
    assert got == ("SUCCESS", None, "")
    for body in (b"symbol\n", b"trade date\n2026-11-27\n"):
        assert (await fetch_from_server(desk, body, "text/csv", parser_type="csv"))[0] == "SUCCESS"


async def test_a_page_that_looks_hostile_is_recognized_in_time(desk: Desk) -> None:
    for body in (b"<!-- -->" * 9_000 + b"<x", b"<!--" * 20_000, b" " * 70_000, b"<" + b"a" * 70_000, b"[" * 70_000):
        await fetch_from_server(desk, body, "text/plain", parser_type="csv")


async def test_a_login_page_changes_neither_the_cache_nor_the_source(desk: Desk) -> None:
    with receiver() as site:
        site.behaviours = [refuse(200, ROWS, **{"Content-Type": "text/csv"})]
        site.always = refuse(200, LOGIN, **{"Content-Type": "text/html"})
        name = await desk.register("http", {"url": f"http://127.0.0.1:{site.port}/a.csv"})
        first = await desk.fetch(name)
        assert (await desk.fetch(name)).status == "FAILED"
    assert await desk.content(name) == [ROWS]
    assert (await desk.source(name)).last_content_hash == first.content_hash


@pytest.mark.parametrize(
    ("content_type", "name", "body"),
    [
        ("text/csv; charset=ISO-8859-1", "x.csv", "\ufeffä,b\nü,2\n".encode()),
        ("text/csv; charset=ISO-8859-1", "x.csv", "\ufeffä,b\nü,2\n".encode("utf-16-le")),
        ("application/json; charset=ISO-8859-1", "x.json", '[{"ä": "ü", "b": 2}]'.encode()),
        ("application/json; charset=ISO-8859-1", "x.json", '\ufeff[{"ä": "ü", "b": 2}]'.encode()),
        ("application/x-ndjson; charset=ISO-8859-1", "x.jsonl", '{"ä": "ü", "b": 2}'.encode()),
        ("text/xml; charset=ISO-8859-1", "x.xml", "\ufeff<r><x ä='ü'><b>2</b></x></r>".encode()),
        (
            "text/xml; charset=ISO-8859-1",
            "x.xml",
            "<?xml version='1.0' encoding='utf-8'?><r><x ä='ü' b='2'/></r>".encode(),
        ),
        (
            "text/xml; charset=utf-8",
            "x.xml",
            "<?xml version='1.0' encoding='latin1'?><r><x ä='ü' b='2'/></r>".encode("latin1"),
        ),
        ("text/xml; charset=ISO-8859-1", "x.xml", "<r><x ä='ü' b='2'/></r>".encode("latin1")),
    ],
)
async def test_what_a_document_says_of_its_encoding_wins_over_the_charset(
    desk: Desk, content_type: str, name: str, body: bytes
) -> None:
    with receiver() as site:
        site.always = refuse(200, body, **{"Content-Type": content_type})
        source = await desk.register(
            "http", {"url": f"http://127.0.0.1:{site.port}/{name}"}, parser_config={"required_columns": ["ä", "b"]}
        )
        fetched = await desk.fetch(source)
    assert (fetched.status, fetched.rows_parsed, fetched.error) == ("SUCCESS", 1, None)


async def test_the_second_file_of_a_pattern_may_be_empty_or_have_another_mark(desk: Desk) -> None:
    name = await desk.register("file", {"path": "*.csv"}, parser_config={"required_columns": ["ä"]})
    settle(desk.file("a.csv", "ä,b\nü,1\n".encode()), desk.file("b.csv", "\ufeffä,b\nö,2\n".encode("utf-16-le")))
    settle(desk.file("c.csv", b""), desk.file("d.csv", b"\xef\xbb\xbf\r\n"))
    fetched = await desk.fetch(name)
    assert (fetched.status, fetched.rows_parsed, fetched.error) == ("SUCCESS", 2, None)
    assert len(await desk.entries(name)) == 4
    # The known files are not empty, so an unchanged one among them is enough.
    assert (await desk.fetch(name)).status == "SUCCESS"


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "xml", "parquet", "csv.gz"])
async def test_an_empty_file_alone_or_among_empty_ones_is_a_failure(desk: Desk, ending: str) -> None:
    empty = gzip.compress(b"") if ending.endswith("gz") else b""
    settle(desk.file(f"a.{ending}", empty), desk.file(f"b.{ending}", empty))
    fetched = await desk.fetch(await desk.register("file", {"path": f"*.{ending}"}))
    assert (fetched.status, fetched.error) == ("FAILED", "All files that match are empty.")
    if ending != "jsonl":
        assert (await desk.fetch(await desk.register("file", {"path": f"a.{ending}"}))).status == "FAILED"


def rows(bad: int, of: int) -> bytes:
    return b"a,b\n" + b"1,2\n" * (of - bad) + b"1\n" * bad


@pytest.mark.parametrize(
    ("bad", "of", "config", "status"),
    [
        (999, 1_000, {}, "FAILED"),
        (2, 100, {}, "FAILED"),
        (1, 100, {}, "PARTIAL"),
        (1, 3, {}, "FAILED"),
        (1, 3, {"max_bad_fraction": 0.34}, "PARTIAL"),
        (1, 1_000, {"max_bad_fraction": 0}, "FAILED"),
        (999, 1_000, {"max_bad_fraction": 1}, "PARTIAL"),
        (29, 2_900, {"max_bad_fraction": 0.01}, "PARTIAL"),
        (2, 1_000, {"max_bad_rows": 1}, "FAILED"),
        (20, 1_000, {"max_bad_rows": 100}, "FAILED"),
        (0, 0, {"max_bad_fraction": 0}, "SUCCESS"),
    ],
)
async def test_too_many_invalid_rows_fail_the_fetch_and_the_last_content_stays(
    desk: Desk, bad: int, of: int, config: dict[str, Any], status: str
) -> None:
    settle(desk.file("a.csv", ROWS))
    name = await desk.register("file", {"path": "a.csv"}, parser_config=config)
    await desk.fetch(name)
    desk.file("a.csv", rows(bad, of))
    fetched = await desk.fetch(name)
    assert fetched.status == status, fetched.error
    if status == "FAILED":
        assert fetched.error_category == "PARSE"
        assert f"{bad:,}" in (fetched.error or "")
        assert await desk.content(name) == [ROWS]


async def test_what_a_fetch_counted_is_what_a_flow_reads(desk: Desk) -> None:
    short = b" Date | Id | n \n20261127| 12345678901234567891 | 007 \n20261128|12345678901234567892|\nEND|2|\n"
    config = {"trim": True, "footer_count_field": 2, "archive_member": "*.psv"}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.psv", "\ufeff".encode() + short)
        archive.writestr("read.me", b"")
    settle(desk.file("a.psv.zip", out.getvalue()), desk.file("b.psv", b""), desk.file("c.psv.gz", gzip.compress(short)))
    settle(desk.file("d.psv", short.decode().encode("utf-16")))
    name = await desk.register("file", {"path": "*.psv*"}, parser_config=config)
    fetched = await desk.fetch(name)
    assert (fetched.status, fetched.rows_parsed, fetched.error) == ("SUCCESS", 6, None)
    files = []
    for entry in await desk.entries(name):
        path = desk.context.store.local_path(entry.content_hash)
        assert path is not None
        files.append(ContentFile(path, entry.name, entry.encoding))
    table = Format.of_source(await desk.source(name)).to_arrow(files)
    ids = [Decimal("12345678901234567891"), Decimal("12345678901234567892")]
    assert table.to_pydict() == {"Date": [20261127, 20261128] * 3, "Id": ids * 3, "n": ["007", ""] * 3}


async def test_an_exact_name_wins_over_a_pattern(desk: Desk) -> None:
    for file, rows_of_it in (("rep[1].csv", 1), ("rep1.csv", 2), ("rep2.csv", 3)):
        settle(desk.file(file, rows(0, rows_of_it)))
    for path, expected in (("rep[1].csv", 1), ("rep[12].csv", 5), ("rep?.csv", 5)):
        fetched = await desk.fetch(await desk.register("file", {"path": path}))
        assert (fetched.status, fetched.rows_parsed) == ("SUCCESS", expected), path


async def test_a_file_of_a_zip_is_chosen_and_the_zip_fails_with_the_names_otherwise(desk: Desk) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("one.csv", ROWS)
        archive.writestr("two.csv", rows(0, 7))
    settle(desk.file("a.csv.zip", out.getvalue()))
    fetched = await desk.fetch(await desk.register("file", {"path": "a.csv.zip"}))
    assert (fetched.status, fetched.error_category) == ("FAILED", "PARSE")
    assert "('one.csv', 'two.csv')" in (fetched.error or "")
    chosen = await desk.register("file", {"path": "a.csv.zip"}, parser_config={"archive_member": "t*.csv"})
    assert (await desk.fetch(chosen)).rows_parsed == 7
