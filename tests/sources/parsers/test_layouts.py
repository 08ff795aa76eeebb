"""Layouts of public files: Nasdaq's symbol directory, FINRA's short volumes, the ECB's rates, the Treasury's yields."""

import io
import random
import zipfile
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from tests.sources.parsers.support import Desk, lines_of

NASDAQ = b"""Symbol|Security Name|Test Issue|Round Lot Size|ETF\r
AAPL|Apple Inc. - Common Stock|N|100|N\r
NA|Nano Labs Ltd - Class A|N|100|N\r
TRUE|TrueCar, Inc.|N|100|N\r
File Creation Time: 1127202621:31||||\r
"""
OTHER_LISTED = b"""ACT Symbol|Security Name|Exchange|CQS Symbol|ETF|Round Lot Size|Test Issue|NASDAQ Symbol\r
A|Agilent Technologies, Inc. Common Stock|N|A|N|100|N|A\r
BRK.A|Berkshire Hathaway Inc. Common Stock|N|BRK.A|N|1|N|BRK.A\r
File Creation Time: 1127202621:31|||||||\r
"""
SHORT_VOLUME = b"""Date|Symbol|ShortVolume|ShortExemptVolume|TotalVolume|Market\r
20261127|A|238133.5|1000|512000|B,Q,N\r
20261127|AA|638133|5014|1204233|B,Q,N\r
20261127|TRUE|6381|0|12042|Q\r
3\r
"""
ECB = b"Date, USD, JPY, GBP, \n27 November 2026, 1.1602, 181.05, N/A, \n26 November 2026, 1.1598, 180.92, 0.8771, \n"
TREASURY = b"""Date,"1 Mo","2 Yr","10 Yr"
11/27/2026,3.95,3.50,4.01
11/25/2026,3.97,,4.00
"""


def zipped(**members: bytes) -> bytes:
    """A zip; a double underscore in a name stands for a dot."""
    return archive({name.replace("__", "."): content for name, content in members.items()})


def archive(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(
    "config",
    [
        {"footer_pattern": "^File Creation Time"},
        {"skip_footer_rows": 1},
        {"skip_footer_rows": 1, "footer_pattern": "Creation"},
    ],
)
def test_the_symbol_directory_ends_with_a_trailer_that_is_no_row(desk: Desk, config: dict[str, Any]) -> None:
    parsed = desk.parse(NASDAQ, "psv", **config)
    assert (parsed.rows, parsed.bad_rows) == (3, 0)
    assert desk.table(NASDAQ, "psv", **config)["Symbol"].to_pylist() == ["AAPL", "NA", "TRUE"]
    assert desk.table(OTHER_LISTED, "psv", **config)["ACT Symbol"].to_pylist() == ["A", "BRK.A"]
    # Without the setting the trailer is a row, as it has the right width.
    assert desk.parse(NASDAQ, "psv").rows == 4


@pytest.mark.parametrize("config", [{}, {"skip_footer_rows": 1}, {"footer_pattern": r"^\d+$"}])
def test_the_count_in_the_trailer_of_short_volumes_is_checked(desk: Desk, config: dict[str, Any]) -> None:
    config = {"max_bad_fraction": 0, "footer_count_field": 1, **config}
    parsed = desk.parse(SHORT_VOLUME, "psv", **config)
    assert (parsed.rows, parsed.bad_rows) == (3, 0)
    table = desk.table(SHORT_VOLUME, "psv", **config)
    assert table["ShortVolume"].to_pylist() == [238133.5, 638133.0, 6381.0]
    cut = SHORT_VOLUME.replace(b"20261127|AA|638133|5014|1204233|B,Q,N\r\n", b"")
    assert "its footer counts 3 rows, but it has 2" in desk.refusal(cut, "psv", **config)


def test_the_count_of_a_footer_includes_invalid_rows(desk: Desk) -> None:
    content = b"a,b\n1,2\n3\n4,5\nTotal records: 3 of 3x,,3\n"
    config: dict[str, Any] = {"skip_footer_rows": 1, "footer_count_field": 3}
    assert (desk.parse(content, "csv", **config).rows, desk.parse(content, "csv", **config).bad_rows) == (2, 1)


@pytest.mark.parametrize(
    ("footer", "reason"),
    [
        (b"", "its footer counts 4 rows, but it has 1"),
        (b"total\n", "field 1 of its footer 'total' is not one count"),
        (b"1 of 2\n", "field 1 of its footer '1 of 2' is not one count"),
        (b"12345678901234567890\n", "is not one count"),
        (b"1,204\n", "its footer counts 1 row, but it has 2"),
        (b'"1,204"\n', "its footer counts 1,204 rows, but it has 2"),
    ],
)
def test_a_footer_without_the_right_count_is_a_failure(desk: Desk, footer: bytes, reason: str) -> None:
    content = b"a,b\n1,2\n4,5\n" + footer
    assert reason in desk.refusal(content, "csv", skip_footer_rows=1, footer_count_field=1)


def test_a_count_that_cannot_be_found_is_a_failure(desk: Desk) -> None:
    cut = SHORT_VOLUME.removesuffix(b"3\r\n")
    assert "no row at its end matches" in desk.refusal(cut, "psv", footer_pattern=r"^\d+$", footer_count_field=1)
    assert desk.parse(cut, "psv", footer_pattern=r"^\d+$").rows == 3


def test_a_pattern_takes_only_rows_at_the_end_and_never_all_rows(desk: Desk) -> None:
    content = b"a\n1\nend 1\n2\n\nend 2\nend 3\n\n\n"
    assert desk.table(content, "csv", footer_pattern="^end")["a"].to_pylist() == ["1", "end 1", "2"]
    assert "all of its 4 rows match footer_pattern" in desk.refusal(SHORT_VOLUME, "psv", footer_pattern=r"^\d")
    many = b"a|b\n" + b"1|2\n" * 300
    assert "more than 100 rows at the end match" in desk.refusal(many, "psv", footer_pattern=r"\|")
    assert desk.parse(b"a,b\nend\n", "csv", footer_pattern="^end").rows == 0


def test_the_rows_that_are_skipped_at_the_end_must_match_the_pattern_too(desk: Desk) -> None:
    config: dict[str, Any] = {"skip_footer_rows": 2, "footer_pattern": "^(end|[0-9]+$)"}
    assert desk.parse(b"a,b\n1,2\nend\n1\n", "csv", **config).rows == 1
    assert "not all of the last 2 rows match footer_pattern" in desk.refusal(b"a,b\n1,2\nend\n", "csv", **config)


def test_a_footer_is_found_at_the_end_of_a_long_file(desk: Desk) -> None:
    rows = b"".join(b"%d|%d\n" % (number, number) for number in range(200_000))
    config: dict[str, Any] = {"skip_footer_rows": 2, "footer_count_field": 2}
    content = b"a|b\n" + rows + b"\nTRAILER|200,000\r\nEND"
    assert desk.parse(content, "psv", **config).rows == 200_000
    assert desk.table(content, "psv", **config)["a"].to_pylist() == list(range(200_000))
    long_footer = b"a|b\n1|2\n" + b"x" * 3_000_000 + b"\n3"
    assert "its footer is longer than 1 MB" in desk.refusal(long_footer, "psv", **config)
    assert "fewer rows than the 50 of its footer" in desk.refusal(b"a\n1\n", "csv", skip_footer_rows=50)
    assert "it has no header" in desk.refusal(b"a\n", "csv", skip_footer_rows=1)


def test_lines_of_invalid_rows_stay_right_with_a_footer_and_trimming(desk: Desk) -> None:
    content = b'odd "title\n a , b \n 1 , 2 \n "x\ny" , 3 \n 4 \n\nEND\n'
    parsed = desk.parse(content, "csv", skip_rows=1, skip_footer_rows=1, trim=True)
    assert (parsed.rows, parsed.columns, lines_of(parsed)) == (2, ("a", "b"), [6])


def test_the_zipped_rates_of_the_ecb_are_numbers(desk: Desk) -> None:
    table = desk.table(zipped(eurofxref__csv=ECB), "csv", "eurofxref.zip", trim=True)
    assert table.column_names == ["Date", "USD", "JPY", "GBP", ""]
    assert table.to_pylist()[1] == {"Date": "26 November 2026", "USD": 1.1598, "JPY": 180.92, "GBP": "0.8771", "": ""}
    types = {"USD": "decimal", "GBP": "decimal"}
    parsed = desk.parse(ECB, "csv", trim=True, columns=types)
    assert [row.reason for row in parsed.examples] == [
        "column GBP: 'N/A' is not a decimal with at most 28 digits before the point and 10 after it"
    ]
    assert desk.table(ECB, "csv", trim=True, columns=types)["USD"].to_pylist() == [Decimal("1.1598")]
    # Spaces are kept unless they are to be trimmed.
    assert desk.table(ECB, "csv")[" USD"].to_pylist() == [" 1.1602", " 1.1598"]


def test_yields_of_the_treasury_keep_their_dates_as_text(desk: Desk) -> None:
    assert desk.table(TREASURY, "csv").to_pydict() == {
        "Date": ["11/27/2026", "11/25/2026"], "1 Mo": [3.95, 3.97], "2 Yr": [3.5, None], "10 Yr": [4.01, 4.0],
    }  # fmt: skip


def test_trimming_keeps_what_is_quoted_and_what_is_within_a_value(desk: Desk) -> None:
    content = b' a\t, "b , b" ,c \n  1  , " x , y " , two  words \n"  ", "say ""hi""" ,\t\n   \n'
    assert desk.table(content, "csv", trim=True).to_pydict() == {
        "a": ["1", "  "], "b , b": [" x , y ", 'say "hi"'], "c": ["two  words", ""],
    }  # fmt: skip
    tabs = desk.table(b"a \t b\n1\t \n2 \t3\n", "tsv", trim=True)
    assert tabs.to_pydict() == {"a": [1, 2], "b": [None, 3]}
    assert "two columns are named 'a'" in desk.refusal(b"a, a\n1,2\n", "csv", trim=True)
    assert "never closed" in desk.refusal(b'a,b\n1, "x\n', "csv", trim=True)


def test_trimming_changes_nothing_else_wherever_a_block_ends(desk: Desk) -> None:
    choose = random.Random(3)
    fields = ["1", "", "x y", '"q, ""r"""', '"two\nlines"', "ä"]
    for size in (900_000, 1_048_570):
        rows = [[choose.choice(fields) for _ in range(3)] for _ in range(size // 24)]
        ends = [choose.choice(["\n", "\r\n", "\r"]) for _ in rows]
        spaced = "".join(
            ",".join(f"{' ' * choose.randrange(3)}{field}\t" for field in row) + end
            for row, end in zip(rows, ends, strict=True)
        )
        plain = "".join(",".join(row) + end for row, end in zip(rows, ends, strict=True))
        header = "k,l,m\n"
        expected = desk.table((header + plain).encode(), "csv")
        assert desk.table((header + spaced).encode(), "csv", trim=True).equals(expected)


def test_a_file_of_a_zip_is_chosen_by_its_name_or_a_pattern(desk: Desk) -> None:
    members = {"b.csv": b"a\n2\n", "a[1].csv": b"a\n1\n", "a1.csv": b"a\n3\n", "docs/read.me": b"", "__MACOSX/b": b"x"}
    content = archive(members)
    for wanted, value in (("b.csv", 2), ("b*", 2), ("a[1].csv", 1), ("a?.csv", 3), ("[b].csv", 2)):
        assert desk.table(content, "csv", "x.zip", archive_member=wanted)["a"].to_pylist() == [value], wanted
    assert desk.refusal(content, "csv", "x.zip") == (
        "x.zip: the zip contains 4 files ('a1.csv', 'a[1].csv', 'b.csv', 'docs/read.me'); "
        "set archive_member to the name of one."
    )
    refusal = desk.refusal(content, "csv", "x.zip", archive_member="*.csv")
    assert "3 files ('a1.csv', 'a[1].csv', 'b.csv') match archive_member '*.csv'" in refusal
    assert "of which none matches archive_member 'c.csv'" in desk.refusal(
        content, "csv", "x.zip", archive_member="c.csv"
    )


@pytest.mark.parametrize("config", [{}, {"encoding": "latin-1"}, {"encoding": "cp1252"}, {"encoding": "utf-8"}])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_wins_over_any_other_encoding(desk: Desk, encoding: str, config: dict[str, Any]) -> None:
    marked = "ä,b\nü,2\n".encode(encoding)
    for content, name in ((marked, "x.csv"), (zipped(x__csv=marked), "x.zip")):
        assert desk.table(content, "csv", name, **config).to_pydict() == {"ä": ["ü"], "b": [2]}
    records = '[{"ä": "ü", "b": 2}]'.encode(encoding)
    assert desk.table(records, "json", **config).to_pydict() == {"ä": ["ü"], "b": [2]}
    if config:
        rows = "<r><x><ä>ü</ä></x></r>".encode(encoding)
        assert desk.table(rows, "xml", **config).to_pydict() == {"ä": ["ü"]}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_refused_until_it_is_configured(desk: Desk, encoding: str) -> None:
    content = "a,b\n1,2\n".encode(encoding)
    assert "contains a NUL; set encoding" in desk.refusal(content, "csv")
    assert desk.table(content, "csv", encoding=encoding).to_pydict() == {"a": [1], "b": [2]}


def test_a_mark_within_the_header_is_refused(desk: Desk) -> None:
    assert "contains a byte-order mark" in desk.refusal("\ufeff\ufeffa,b\n1,2\n".encode(), "csv")


def test_a_date_declared_for_a_column_with_spaces_is_read_after_trimming(desk: Desk) -> None:
    table = desk.table(b"day , n\n 2026-11-27 , 007 \n", "csv", trim=True, columns={"day": "date"})
    assert table.to_pydict() == {"day": [date(2026, 11, 27)], "n": ["007"]}
