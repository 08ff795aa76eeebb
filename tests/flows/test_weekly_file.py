"""The structure of a weekly file: what is tolerated, and how a broken file names its line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flows.finra import weekly_file
from flows.finra.weekly_file import BrokenFile

HEADER = "|".join(weekly_file.COLUMNS)
ROW = "OTC|AAA|Alpha Inc|NLNK NORTHERN LINK|NLNK|100|2|2026-01-05"


def broken(content: bytes, folder: Path) -> str:
    path = folder / "weekly.csv"
    path.write_bytes(content)
    with pytest.raises(BrokenFile) as raised:
        weekly_file.check_structure(path)
    return str(raised.value)


def test_a_line_with_too_few_fields_is_named(tmp_path: Path) -> None:
    message = broken(f"{HEADER}\n{ROW}\n{ROW.rpartition('|')[0]}\n{ROW}\n".encode(), tmp_path)
    assert message == "weekly.csv, line 3: expected 8 fields, found 7."


def test_the_first_of_several_lines_with_too_many_fields_is_named(tmp_path: Path) -> None:
    message = broken(f"{HEADER}\n{ROW}\n{ROW}\n{ROW}|x\n{ROW}|y|z\n".encode(), tmp_path)
    assert message == "weekly.csv, line 4: expected 8 fields, found 9."


def test_a_blank_line_counts_as_a_line_and_is_named(tmp_path: Path) -> None:
    message = broken(f"{HEADER}\r\n{ROW}\r\n\r\n{ROW}\r\n".encode(), tmp_path)
    assert message == "weekly.csv, line 3: expected 8 fields, found 1."


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (HEADER.replace("MPID", "venueCode"), "line 1: column 5 must be 'MPID'."),
        (HEADER.removesuffix("|lastUpdateDate"), "line 1: expected 8 columns in the header, found 7."),
        (HEADER + "|more", "line 1: expected 8 columns in the header, found 9."),
        (HEADER.replace("|", ","), "column 1 must be 'tierDescription'."),
        (ROW, "line 1: column 1 must be 'tierDescription'."),
        ("", "line 1: the header is missing."),
    ],
)
def test_a_wrong_header_is_named_as_line_1(tmp_path: Path, header: str, says: str) -> None:
    assert says in broken(f"{header}\n{ROW}\n".encode(), tmp_path)


def test_an_empty_file_is_broken(tmp_path: Path) -> None:
    assert broken(b"", tmp_path) == "weekly.csv, line 1: the file is empty."


def test_a_file_without_rows_is_broken(tmp_path: Path) -> None:
    assert broken(f"{HEADER}\n".encode(), tmp_path) == "weekly.csv, line 2: there are no rows after the header."


def test_the_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    latin = ROW.replace("Alpha", "Société").encode("latin-1")
    message = broken(b"\n".join([HEADER.encode(), ROW.encode(), ROW.encode(), latin, ROW.encode()]), tmp_path)
    assert message == "weekly.csv, line 4: it is not valid UTF-8."


@pytest.mark.parametrize("shift", range(7))
def test_the_line_that_is_not_utf8_is_found_wherever_blocks_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    # The last sound character has three bytes; in some of the shifts a block ends inside it.
    monkeypatch.setattr(weekly_file, "BLOCK", 7)
    last = b"x" * shift + "€".encode() + b"\xff\n\n\n"
    message = broken(b"\n".join([HEADER.encode(), *[ROW.replace("Alpha", "Åéöü").encode()] * 50, last]), tmp_path)
    assert message == "weekly.csv, line 52: it is not valid UTF-8."


def test_a_character_that_the_end_of_the_file_cuts_is_named(tmp_path: Path) -> None:
    message = broken(f"{HEADER}\n{ROW}\n{ROW}é".encode()[:-1], tmp_path)
    assert message == "weekly.csv, line 3: it is not valid UTF-8."


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_marks_leave_no_trace_in_the_values(
    write_file: Callable[..., Path], end: str, start: bytes
) -> None:
    path = write_file([ROW], end=end, start=start)
    weekly_file.check_structure(path)
    row = weekly_file.scan(path).collect().row(0, named=True)
    assert row == {
        "line_number": 2,
        "line": ROW,
        "tier": "OTC",
        "symbol": "AAA",
        "issue_name": "Alpha Inc",
        "venue_name": "NLNK NORTHERN LINK",
        "mpid": "NLNK",
        "shares": "100",
        "trades": "2",
        "last_update": "2026-01-05",
    }


def test_quotes_are_ordinary_characters(write_file: Callable[..., Path]) -> None:
    path = write_file([ROW.replace("Alpha Inc", 'The "Alpha'), ROW])
    weekly_file.check_structure(path)
    assert weekly_file.scan(path).collect()["issue_name"].to_list() == ['The "Alpha', "Alpha Inc"]


def test_a_last_line_without_line_end_is_a_row(write_file: Callable[..., Path]) -> None:
    path = write_file([ROW, ROW])
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    weekly_file.check_structure(path)
    assert weekly_file.scan(path).collect()["last_update"].to_list() == ["2026-01-05"] * 2


def test_a_path_with_wildcards_in_it_is_one_file(write_file: Callable[..., Path], tmp_path: Path) -> None:
    path = write_file([ROW]).rename(tmp_path / "week[1]*.csv")
    weekly_file.check_structure(path)
    assert weekly_file.scan(path).collect().height == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"The file .*nowhere\.csv was not found"):
        weekly_file.locate(str(tmp_path / "nowhere.csv"))


def test_a_file_that_changed_after_it_was_located_is_refused(write_file: Callable[..., Path]) -> None:
    path = write_file([ROW])
    source = weekly_file.locate(str(path))
    weekly_file.check_unchanged(source)
    path.write_bytes(path.read_bytes().replace(b"|100|", b"|101|"))
    with pytest.raises(BrokenFile, match="has changed since the step extract"):
        weekly_file.check_unchanged(source)
