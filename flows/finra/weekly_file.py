"""Reads FINRA's weekly OTC file: one header line, then lines of eight fields separated by ``|``, in UTF-8.

The format has no quotes and no escapes. Windows line ends and a byte-order mark are accepted. Any other structure
raises `BrokenFile` for the whole file; invalid values in single rows are left to `row_rules`.
"""

import codecs
import hashlib
from pathlib import Path
from typing import TypedDict

import polars as pl

COLUMNS = {
    "tierDescription": "tier",
    "issueSymbolIdentifier": "symbol",
    "issueName": "issue_name",
    "marketParticipantName": "venue_name",
    "MPID": "mpid",
    "totalWeeklyShareQuantity": "shares",
    "totalWeeklyTradeCount": "trades",
    "lastUpdateDate": "last_update",
}
"""FINRA's columns, in the order of the file, and our names for them."""

BLOCK = 1 << 20
LONGEST_HEADER = 1 << 16


class BrokenFile(ValueError):
    """The file does not have the structure of FINRA's weekly file; the message gives the line."""


class SourceFile(TypedDict):
    """A file: absolute path, SHA-256 in hex, size in bytes."""

    path: str
    sha256: str
    size_bytes: int


def locate(path: str) -> SourceFile:
    """Find and hash the file at ``path``, which may be relative to the working directory.

    Raises FileNotFoundError if there is no regular file.
    """
    file = Path(path).absolute()
    if not file.is_file():
        raise FileNotFoundError(f"The file {file} was not found.")
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return SourceFile(path=str(file), sha256=digest.hexdigest(), size_bytes=file.stat().st_size)


def check_unchanged(source: SourceFile) -> None:
    """Raise `BrokenFile` if the content of the file has changed since ``source`` was made."""
    if locate(source["path"])["sha256"] != source["sha256"]:
        raise BrokenFile(f"{source['path']} has changed since the step extract; start a new run for the new content.")


def check_structure(path: Path) -> None:
    """Raise `BrokenFile` with the first invalid line, unless ``path`` is UTF-8 with FINRA's header and fields."""
    _check_text(path)
    _check_header(path)
    separators = len(COLUMNS) - 1
    wrong = (
        _data_lines(path)
        .with_columns(fields=pl.col("line").str.count_matches("|", literal=True) + 1)
        .filter(pl.col("fields") != separators + 1)
        .head(1)
        .collect(engine="streaming")
    )
    for line_number, fields in wrong.select("line_number", "fields").iter_rows():
        raise BrokenFile(f"{path.name}, line {line_number}: expected {len(COLUMNS)} fields, found {fields}.")
    if _data_lines(path).head(1).collect(engine="streaming").is_empty():
        raise BrokenFile(f"{path.name}, line 2: there are no rows after the header.")


def scan(path: Path) -> pl.LazyFrame:
    """The rows of a file with the right structure, as text.

    Columns: line_number (Int64, the header is line 1), line (the whole line), and those of `COLUMNS` by our names.
    """
    fields = pl.col("line").str.split_exact("|", len(COLUMNS) - 1).struct.rename_fields(list(COLUMNS.values()))
    return _data_lines(path).with_columns(fields=fields).unnest("fields")


def _data_lines(path: Path) -> pl.LazyFrame:
    lines = pl.scan_lines(path, name="line", row_index_name="line_number", row_index_offset=1, glob=False)
    return lines.slice(1).with_columns(pl.col("line_number").cast(pl.Int64))


def _check_text(path: Path) -> None:
    # Polars reports that a file is not UTF-8, but not where. Decoding block by block is cheap and counts the lines.
    decoder = codecs.getincrementaldecoder("utf-8")()
    line_number = 1
    with path.open("rb") as stream:
        while True:
            block = stream.read(BLOCK)
            held_back = decoder.getstate()[0]
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                line_number += (held_back + block).count(b"\n", 0, error.start)
                raise BrokenFile(f"{path.name}, line {line_number}: it is not valid UTF-8.") from None
            if not block:
                return
            line_number += block.count(b"\n")


def _check_header(path: Path) -> None:
    with path.open("rb") as stream:
        raw = stream.readline(LONGEST_HEADER)
    header = raw.decode("utf-8-sig", errors="replace").rstrip("\r\n")
    if not header:
        raise BrokenFile(f"{path.name}, line 1: {'the header is missing' if raw else 'the file is empty'}.")
    found, expected = header.split("|"), list(COLUMNS)
    for position, (name, right) in enumerate(zip(found, expected, strict=False), start=1):
        if name.strip() != right:
            raise BrokenFile(f"{path.name}, line 1: column {position} must be '{right}'.")
    if len(found) != len(expected):
        raise BrokenFile(f"{path.name}, line 1: expected {len(expected)} columns in the header, found {len(found)}.")
