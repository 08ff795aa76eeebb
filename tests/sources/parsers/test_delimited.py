import csv
import io
import random
from pathlib import Path
from typing import Any

import pytest
from spine.sources.parsers import ParserConfig, ParserType, parse
from spine.sources.parsers.csv_tokenizer import Dialect, LineCount, Rows
from spine.sources.parsers.delimited import read_delimited
from spine.sources.parsers.parse_errors import ParseError
from spine.sources.parsers.row_counter import RowCounter

from flows.finra.weekly_file import scan
from tests.sources.parsers.support import Desk, lines_of
from tests.support.weekly_files import WEEKLY_FILES, WeeklyFile


@pytest.mark.parametrize("weekly", WEEKLY_FILES, ids=lambda weekly: weekly.name)
def test_a_weekly_file_has_the_rows_that_its_workflow_reads(weekly: WeeklyFile, tmp_path: Path) -> None:
    path, rows = weekly.write(tmp_path), weekly.figures.rows
    parsed = parse(path, path.name, ParserType.PSV, ParserConfig(columns={"lastUpdateDate": "date"}))
    assert (parsed.rows, parsed.bad_rows, len(parsed.columns)) == (rows, 0, 8)
    assert scan(path).collect().height == rows


def test_rows_of_another_width_are_left_out_with_line_and_reason(desk: Desk) -> None:
    parsed = desk.parse(b"a|b\n1|2\n\n1|2|3\n\r\n4\n5|6", "psv")
    assert (parsed.rows, parsed.bad_rows, parsed.columns) == (2, 2, ("a", "b"))
    assert [(row.line, row.reason) for row in parsed.examples] == [
        (4, "has 3 fields, the header has 2"),
        (6, "has 1 field, the header has 2"),
    ]


def test_line_numbers_stay_right_after_quoted_newlines_and_skipped_lines(desk: Desk) -> None:
    content = b'title\n"odd\n\na,"b\nb"\n1,"x\n\ny"\n2\n"3\r\n",""\n4,5,6\n'
    parsed = desk.parse(content, "csv", skip_rows=2)
    assert (parsed.rows, lines_of(parsed), parsed.columns) == (2, [9, 12], ("a", "b\nb"))


def test_values_that_do_not_fit_their_column_make_the_row_bad(desk: Desk) -> None:
    content = b"id,weekEnding\n1,2025-12-15\nx,2025-12-15\n3\n,\n4,2025-02-30\n0x1F,\n9,abc\n"
    parsed = desk.parse(content, "csv", columns={"id": "integer", "weekEnding": "date", "absent": "date"})
    assert parsed.rows == 2
    assert [(row.line, row.reason) for row in parsed.examples] == [
        (3, "column id: 'x' is not a 64-bit integer"),
        (4, "has 1 field, the header has 2"),
        (6, "column weekEnding: '2025-02-30' is not a date"),
        (7, "column id: '0x1F' is not a 64-bit integer"),
        (8, "column weekEnding: 'abc' is not a date"),
    ]


def test_the_first_bad_rows_of_a_large_file_are_found_at_their_lines(desk: Desk) -> None:
    rows = [f'{number},"text, {number}\n"' if number % 7 == 0 else f"{number},plain" for number in range(120_000)]
    wrong = {3: "3", 60_000: "x,y", 60_001: "1,2,3", 119_999: "y,z"}
    lines, line = [], 2
    for number in range(len(rows)):
        if number in wrong:
            rows[number] = wrong[number]
            lines.append(line)
        line += 1 + rows[number].count("\n")
    parsed = desk.parse("\n".join(["id,text", *rows]).encode(), "csv", columns={"id": "integer"})
    assert (parsed.rows, parsed.bad_rows, lines_of(parsed)) == (119_996, 4, lines)


def test_lines_are_right_where_many_quoted_rows_are_skipped_at_once(desk: Desk) -> None:
    row = '"1","a ""quoted"" text"\r\n\n"2","two\nlines"\r'
    parsed = desk.parse(("a,b\n" + row * 5_000 + "3\n" + row * 200 + "4\n").encode(), "csv")
    assert (parsed.rows, lines_of(parsed)) == (10_400, [20_002, 20_803])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("blank", [None, 0, 2_999, 3_000])
@pytest.mark.parametrize("broken", [None, 0, 1_500])
@pytest.mark.parametrize("ends", [0, 1, 3])
def test_lines_are_right_with_and_without_blank_lines_and_line_ends_in_values(
    desk: Desk, end: str, blank: int | None, broken: int | None, ends: int
) -> None:
    lines, wrong = ["a,b"], []
    for number in range(3_000):
        lines += [""] if number == blank else []
        if number % 1_000 == 999:
            wrong.append(sum(line.count(end) + 1 for line in lines) + 1)
            lines.append('"wrong"')
        else:
            lines.append(f'"{number}","text{end if number == broken else ","}{number}"')
    lines += [""] if blank == 3_000 else []
    parsed = desk.parse((end.join(lines) + end * ends).encode(), "csv")
    assert (parsed.rows, lines_of(parsed)) == (2_997, wrong)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_counted_in_any_pieces(size: int) -> None:
    chance = random.Random(8)
    for _ in range(300):
        text = "".join(chance.choices(["a", "\n", "\r", "\r\n"], k=chance.randrange(12))).encode()
        counted = LineCount()
        for at in range(0, len(text), size):
            counted.add(text[at : at + size])
        assert counted.lines == len(text.rstrip(b"\r\n").splitlines()), text


def test_lines_of_bad_rows_are_found_without_reading_a_file_again() -> None:
    content = b"a,b\n" + b'"1, 2","3"\n' * 500_000 + b'"wrong"\n'
    read = 0

    class Counting(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal read
            piece = super().read(size)
            read += len(piece)
            return piece

    counter = RowCounter(ParserConfig())
    rows = sum(
        batch.num_rows
        for batch in read_delimited(lambda: Counting(content), ParserType.CSV, counter.config, counter, whole=True)
    )
    assert (rows, [bad.line for bad in counter.examples]) == (500_000, [500_002])
    assert read < 1.5 * len(content)


def test_the_first_twenty_invalid_rows_are_listed_and_all_are_counted(desk: Desk) -> None:
    content = "a,b\n1,2\n" + "".join("1\nx,2\n" for _ in range(50))
    parsed = desk.parse(content.encode(), "csv", columns={"a": "integer"})
    assert (parsed.rows, parsed.bad_rows, lines_of(parsed)) == (1, 100, list(range(3, 23)))


def widths_of(content: bytes) -> list[int] | None:
    dialect, widths = Dialect(b",", b'"'), []
    rows = Rows(io.BytesIO(content), dialect)
    try:
        while (row := rows.next()) is not None:
            widths.append(len(dialect.split(row[1])))
    except ParseError:
        return None
    return widths


def test_rows_are_split_as_arrow_splits_them(desk: Desk) -> None:
    choose = random.Random(5)
    for _ in range(150):
        content = b"a,b\n" + bytes(choose.choices(b'ab,,"\n\r\0 ', k=choose.randrange(60)))
        widths = widths_of(content)
        if widths is None:
            assert "never closed" in desk.refusal(content, "csv")
            continue
        good = sum(width == 2 for width in widths[1:])
        if good:
            parsed = desk.parse(content, "csv")
            assert (parsed.rows, parsed.bad_rows) == (good, len(widths) - 1 - good), content
        elif len(widths) > 1:
            assert "all rows are invalid" in desk.refusal(content, "csv")


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        (b'"a",' * 3_000 + b"b", 3_001),
        (b'"' + b'""' * 3_000 + b'",b', 2),
        (b'"' + b'""' * 3_000 + b"\n" + b'",' + b"," * 3_000, 3_002),
    ],
    ids=["fields", "quotes", "both"],
)
def test_rows_of_many_fields_and_of_many_quotes_are_split(row: bytes, fields: int) -> None:
    assert widths_of(b"a\n" + row + b"\nb,c\n") == [1, fields, 2]
    assert widths_of(b"a\n" + row + b',"') is None


def test_what_python_writes_is_read_with_as_many_rows(desk: Desk) -> None:
    choose, out = random.Random(1), io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["a", "b"])
    writer.writerows(["".join(choose.choices('x",\n\r', k=5)), "y"] for _ in range(300))
    assert desk.parse(out.getvalue().encode(), "csv").rows == 300


def test_a_quote_that_is_never_closed_is_named_and_not_counted_as_a_row(desk: Desk) -> None:
    sentence = desk.refusal(b'a,b\n1,2\n3,"x\n4,5\n', "csv")
    assert sentence.startswith("file: a quote is opened in the row at line 3 and never closed")
    assert desk.parse(b'a,b\n1,2\n3,"x\n4,5\n', "csv", quote_char=None).rows == 3


@pytest.mark.slow
def test_a_line_may_be_longer_than_a_block_and_not_longer_than_the_limit(desk: Desk) -> None:
    start = b"a,b\n" + b"1,2\n" * 400_000
    parsed = desk.parse(start + b"x" * 5_000_000 + b",y\n3\n", "csv")
    assert (parsed.rows, lines_of(parsed)) == (400_001, [400_003])
    assert "line 400,002 is longer than 16 MB" in desk.refusal(start + b"x" * 40_000_000 + b",y\n", "csv")


@pytest.mark.parametrize(
    ("content", "config", "reason"),
    [
        (b"", {}, "it has no header"),
        (b"\n\n", {}, "it has no header"),
        (b"a\n", {"skip_rows": 1}, "it has no header"),
        (b"a,b,a\n1,2,3\n", {}, "two columns are named 'a'"),
        (b"a,b\n1,2\n", {"required_columns": ["b", "c"]}, "the required column 'c' is missing"),
        (b"a,b\n1\n2\n", {}, "all rows are invalid; the first, at 2: has 1 field, the header has 2"),
        (b"a,b\n1,2\n1\n2\n", {"max_bad_rows": 1}, "2 invalid rows, more than the 1 that max_bad_rows allows"),
        (b"a|b\n1|2\n", {}, "the header has no ',' but '|'"),
        (b"sep=,\na,b\n1,2\n", {}, "its first line names the delimiter; set skip_rows to 1"),
        (b"a,b\n1,2\n1,\xff\n", {}, "line 3 is not valid utf-8"),
        (b"a,b\n1,\x81\n", {"encoding": "cp1252"}, "line 2 is not valid cp1252"),
        ("a,b\n1,2\n".encode("utf-16") + b"\x00", {"encoding": "utf-16"}, "line 3 is not valid utf-16"),
    ],
)
def test_what_is_wrong_with_a_whole_file_is_one_sentence(
    desk: Desk, content: bytes, config: dict[str, Any], reason: str
) -> None:
    assert reason in desk.refusal(content, "csv", **config)


def test_a_reason_quotes_at_most_forty_characters_of_a_value(desk: Desk) -> None:
    parsed = desk.parse(b"a\n1\n" + b"x" * 500 + b"\n", "csv", columns={"a": "integer"})
    assert parsed.examples[0].reason == f"column a: '{'x' * 39}…' is not a 64-bit integer"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "utf-32-be"])
def test_the_encoding_is_as_configured(desk: Desk, encoding: str) -> None:
    parsed = desk.parse("ä;b\né;2\n3\n".encode(encoding), "csv", encoding=encoding, delimiter=";")
    assert (parsed.rows, parsed.columns, lines_of(parsed)) == (1, ("ä", "b"), [3])


def test_a_byte_order_mark_is_not_part_of_the_first_column(desk: Desk) -> None:
    assert desk.parse(b"\xef\xbb\xbfa,b\n1,2\n", "csv").columns == ("a", "b")
    assert "no header" in desk.refusal(b"\xef\xbb\xbf", "csv")


def test_a_file_without_a_header_has_the_configured_columns_or_numbers(desk: Desk) -> None:
    assert desk.parse(b"1\t2\n3\t4", "tsv", has_header=False).columns == ("column_1", "column_2")
    named = desk.parse(b"1\t2\n3\n", "tsv", has_header=False, columns={"x": "integer", "y": "string"})
    assert (named.rows, named.columns, named.examples[0].reason) == (1, ("x", "y"), "has 1 field, 2 are expected")
    assert desk.parse(b"", "tsv", has_header=False).rows == 0
    for encoding in ("utf-16-le", "utf-16-be"):
        content = ("1\t2\n" * 300).encode(encoding)
        assert "set encoding to that of the file" in desk.refusal(content, "tsv", has_header=False)
        assert desk.table(content, "tsv", has_header=False, encoding=encoding)["column_2"].to_pylist() == [2] * 300


def test_a_header_alone_is_a_file_of_no_rows(desk: Desk) -> None:
    assert desk.parse(b"a,b", "csv").rows == 0
