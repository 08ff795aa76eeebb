"""Conditional and range requests of RFC 9110, and the headers that name content."""

from datetime import UTC, datetime

import pytest
from spine.cache.conditions import ByteRange, RangeNotSatisfiable, http_date, is_unchanged, requested_range
from spine.cache.content_headers import content_disposition, media_type

ETAG = f'"{"a" * 64}"'
MOMENT = datetime(2025, 12, 15, 9, 30, 1, 999_999, tzinfo=UTC)
DATE = "Mon, 15 Dec 2025 09:30:01 GMT"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=2-5", ByteRange(2, 4)),
        ("bytes=2-", ByteRange(2, 98)),
        ("bytes=99-", ByteRange(99, 1)),
        ("bytes=90-1000", ByteRange(90, 10)),
        ("bytes=-1", ByteRange(99, 1)),
        ("bytes=-1000", ByteRange(0, 100)),
        ("Bytes=0-9", ByteRange(0, 10)),
        ("bytes=0-" + "9" * 5000, ByteRange(0, 100)),
        ("bytes=" + "0" * 5000 + "1-2", ByteRange(1, 2)),
        ("bytes=0-1,3-4", None),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=a-b", None),
        ("bytes=--1", None),
        ("bytes=1_0-20", None),
        ("bytes=\u0661-\u0662", None),
        ("rows=0-1", None),
        ("", None),
    ],
)
def test_a_range_of_a_hundred_bytes(header: str, expected: ByteRange | None) -> None:
    assert requested_range({"range": header}, 100, ETAG, MOMENT) == expected


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("bytes=100-", 100),
        ("bytes=100-200", 100),
        ("bytes=" + "9" * 5000 + "-", 100),
        ("bytes=-0", 100),
        ("bytes=0-", 0),
        ("bytes=-5", 0),
    ],
)
def test_a_range_after_the_end_is_unsatisfiable(header: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiable):
        requested_range({"range": header}, size, ETAG, MOMENT)


@pytest.mark.parametrize(
    ("condition", "matches"),
    [
        (ETAG, True),
        (f"W/{ETAG}", False),
        ('"other"', False),
        (DATE, True),
        ("Mon, 15 Dec 2025 09:30:02 GMT", False),
        ("nonsense", False),
    ],
)
def test_a_range_is_sent_only_for_the_content_of_if_range(condition: str, matches: bool) -> None:
    found = requested_range({"range": "bytes=0-9", "if-range": condition}, 100, ETAG, MOMENT)
    assert found == (ByteRange(0, 10) if matches else None)


@pytest.mark.parametrize(
    ("headers", "unchanged"),
    [
        ({"if-none-match": ETAG}, True),
        ({"if-none-match": f"W/{ETAG}"}, True),
        ({"if-none-match": f'"x", W/"y,z" ,{ETAG}'}, True),
        ({"if-none-match": "*"}, True),
        ({"if-none-match": '"x"'}, False),
        ({"if-none-match": "a" * 64}, False),
        ({"if-none-match": '"x"', "if-modified-since": DATE}, False),
        ({"if-modified-since": DATE}, True),
        ({"if-modified-since": "Mon, 15 Dec 2025 09:30:00 GMT"}, False),
        ({"if-modified-since": "yesterday"}, False),
        ({"if-modified-since": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}, False),
        ({"if-modified-since": "Mon, 15 Dec 2025 09:30:01 +99999999999999999999"}, False),
        ({"if-modified-since": f"Mon, 15 Dec {'9' * 5000} 09:30:01 GMT"}, False),
        ({}, False),
    ],
)
def test_content_that_the_client_has_is_unchanged(headers: dict[str, str], unchanged: bool) -> None:
    assert is_unchanged(headers, ETAG, MOMENT) is unchanged


def test_times_are_written_in_the_format_of_http() -> None:
    assert http_date(MOMENT) == DATE


@pytest.mark.parametrize(
    ("content_type", "encoding", "sent"),
    [
        ("text/csv", "latin-1", "text/csv; charset=latin-1"),
        ("Text/CSV; charset=utf-8", None, "text/csv"),
        ("application/json", "utf-8", "application/json"),
        (None, "utf-8", "application/octet-stream"),
        ("text/html", "utf-8", "application/octet-stream"),
        ("application/xhtml+xml", None, "application/octet-stream"),
        ("image/svg+xml", None, "application/octet-stream"),
        ("text/xml", None, "application/octet-stream"),
        ("text/javascript", None, "application/octet-stream"),
        ("multipart/x-mixed-replace", None, "application/octet-stream"),
        ("text/csv\r\nX-Bad: 1", None, "application/octet-stream"),
        ("text/csv", "utf-8\r\nX-Bad: 1", "text/csv"),
        ("text", None, "application/octet-stream"),
    ],
)
def test_only_harmless_types_are_passed_on(content_type: str | None, encoding: str | None, sent: str) -> None:
    assert media_type(content_type, encoding) == sent


@pytest.mark.parametrize(
    ("name", "plain", "exact"),
    [
        ("weekly.csv", "weekly.csv", "weekly.csv"),
        ("2025/12/weekly file.csv", "weekly file.csv", "weekly%20file.csv"),
        ("..\\..\\evil.exe", "evil.exe", "evil.exe"),
        ("Börse.csv", "B_rse.csv", "B%C3%B6rse.csv"),
        ('a"; filename=b.html', "a__ filename_b.html", "a%22%3B%20filename%3Db.html"),
        ("a\r\nX-Bad: 1", "a__X-Bad_ 1", "a__X-Bad%3A%201"),
        ("\udcff.csv", "_.csv", "_.csv"),
        ("..", "content", "content"),
        ("", "content", "content"),
    ],
)
def test_a_file_name_is_safe_in_a_header(name: str, plain: str, exact: str) -> None:
    assert content_disposition(name) == f"attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}"


def test_a_long_name_keeps_its_extension() -> None:
    assert content_disposition("x" * 5000 + ".csv").endswith("x.csv")
    assert len(content_disposition("x" * 5000 + ".csv")) < 500
