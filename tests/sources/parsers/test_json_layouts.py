"""Layouts of JSON as publishers use them; the files are of our own making."""

import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from tests.sources.parsers.support import Desk

# SEC, files/company_tickers.json
TICKERS = b"""{"0": {"cik_str": 320193, "ticker": "AAPL", "title": "Apple Inc."},
"1": {"cik_str": 789019, "ticker": "MSFT", "title": "MICROSOFT CORP"}}"""
# SEC, files/company_tickers_exchange.json
EXCHANGES = b"""{"fields": ["cik", "name", "ticker", "exchange"],
"data": [[320193, "Apple Inc.", "AAPL", "Nasdaq"], [1, "Demo", "DEMO", null]]}"""
# SEC, submissions/CIK##########.json
SUBMISSIONS = b"""{"cik": "0000320193", "name": "Apple Inc.", "tickers": ["AAPL"], "filings": {"recent": {
"accessionNumber": ["0000320193-26-000001", "0000320193-26-000002"], "filingDate": ["2026-11-27", "2026-11-26"],
"reportDate": ["2026-11-25", ""], "size": [4821, 15027], "isXBRL": [0, 1]},
"files": [{"name": "CIK0000320193-submissions-001.json", "filingCount": 1240}]}}"""
# FINRA, data/group/otcMarket/name/weeklySummary
WEEKLY = b"""[{"totalWeeklyShareQuantity": 1254300, "issueSymbolIdentifier": "A", "issueName": "Agilent",
"lastUpdateDate": "2026-11-24", "totalWeeklyTradeCount": 9120, "marketParticipantName": null, "tierIdentifier": "T1",
"totalNotionalSum": 151203456.78, "weekStartDate": "2026-11-09"},
{"totalWeeklyShareQuantity": 12345678901234567, "issueSymbolIdentifier": "TRUE", "issueName": "TrueCar",
"lastUpdateDate": "2026-11-24", "totalWeeklyTradeCount": 1, "marketParticipantName": "X", "tierIdentifier": "T2",
"totalNotionalSum": 0.5, "weekStartDate": "2026-11-09"}]"""
# U.S. Treasury, Fiscal Data: every value is a string.
FISCAL = b"""{"data": [{"record_date": "2026-10-31", "security_desc": "Treasury Bills",
"avg_interest_rate_amt": "3.912"}], "meta": {"count": 1, "dataTypes": {"avg_interest_rate_amt": "PERCENTAGE"}},
"links": {"self": "&page%5Bnumber%5D=1"}}"""
# U.S. Census: the names are the first row.
CENSUS = b'[["NAME", "P1_001N", "state"],\n["Alabama", "5024279", "01"],\n["Alaska", "733391", "02"]]'
# Socrata: the names are in a list of objects.
SOCRATA = b'{"meta": {"view": {"columns": [{"name": "id", "x": 1}, {"name": "v"}]}}, "data": [["a", 1.5]]}'


def test_an_object_keyed_by_id_has_a_row_for_each_entry(desk: Desk) -> None:
    assert desk.parse(TICKERS, "json", records_layout="keyed").rows == 2
    assert desk.table(TICKERS, "json", records_layout="keyed", key_column="number").to_pydict() == {
        "number": ["0", "1"],
        "cik_str": [320193, 789019],
        "ticker": ["AAPL", "MSFT"],
        "title": ["Apple Inc.", "MICROSOFT CORP"],
    }


def test_an_object_may_have_more_entries_than_a_table_has_columns(desk: Desk) -> None:
    content = json.dumps({str(at): {"cik_str": at, "ticker": f"T{at}"} for at in range(12_000)}).encode()
    config: dict[str, Any] = {"records_layout": "keyed", "columns": {"key": "integer"}}
    assert desk.parse(content, "json", **config).rows == 12_000
    assert desk.table(content, "json", **config)["key"].to_pylist() == list(range(12_000))


def test_names_of_columns_are_beside_the_rows(desk: Desk) -> None:
    config: dict[str, Any] = {"records_layout": "arrays", "records_path": "data", "names_path": "fields"}
    expected = {
        "cik": [320193, 1], "name": ["Apple Inc.", "Demo"], "ticker": ["AAPL", "DEMO"], "exchange": ["Nasdaq", None],
    }  # fmt: skip
    assert desk.table(EXCHANGES, "json", **config).to_pydict() == expected
    fields, data = EXCHANGES.decode()[1:-1].split(",\n")
    assert desk.table(f"{{{data}, {fields}}}".encode(), "json", **config).to_pydict() == expected
    config |= {"names_path": "meta.view.columns.name"}
    assert desk.table(SOCRATA, "json", **config).to_pydict() == {"id": ["a"], "v": [1.5]}


def test_arrays_beside_each_other_are_columns(desk: Desk) -> None:
    table = desk.table(
        SUBMISSIONS,
        "json",
        records_layout="columns",
        records_path="filings.recent",
        columns={"reportDate": "date"},
    )
    assert table.column_names == ["accessionNumber", "filingDate", "reportDate", "size", "isXBRL"]
    assert table["reportDate"].to_pylist() == [date(2026, 11, 25), None]
    assert table["size"].to_pylist() == [4821, 15027]


def test_rows_of_an_interface_keep_their_types(desk: Desk) -> None:
    weekly = desk.table(WEEKLY, "json", columns={"totalNotionalSum": "decimal", "weekStartDate": "date"})
    assert weekly["totalWeeklyShareQuantity"].to_pylist() == [1254300, 12345678901234567]
    assert weekly["totalNotionalSum"].to_pylist() == [Decimal("151203456.78"), Decimal("0.5")]
    assert weekly["issueSymbolIdentifier"].to_pylist() == ["A", "TRUE"]
    fiscal = desk.table(FISCAL, "json", records_path="data", columns={"avg_interest_rate_amt": "decimal"})
    assert fiscal["avg_interest_rate_amt"].to_pylist() == [Decimal("3.912")]
    assert fiscal["record_date"].to_pylist() == ["2026-10-31"]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_names_are_in_the_first_array_or_in_the_configuration(desk: Desk, kind: str) -> None:
    content = CENSUS if kind == "json" else CENSUS[1:-1].replace(b",\n", b"\n")
    assert desk.table(content, kind, records_layout="arrays").to_pydict() == {
        "NAME": ["Alabama", "Alaska"], "P1_001N": ["5024279", "733391"], "state": ["01", "02"],
    }  # fmt: skip
    without: dict[str, Any] = {"records_layout": "arrays", "has_header": False}
    assert desk.table(content, kind, **without)["column_3"].to_pylist() == ["state", "01", "02"]
    assert desk.parse(content, kind, **without, columns=dict.fromkeys("abc", "string")).columns == ("a", "b", "c")


@pytest.mark.parametrize(
    ("content", "config", "columns"),
    [
        (b'[["a", "b"]]', {"records_layout": "arrays"}, ["a", "b"]),
        (b'{"n": ["a"], "d": []}', {"records_layout": "arrays", "records_path": "d", "names_path": "n"}, ["a"]),
        (b'{"a": [], "b": []}', {"records_layout": "columns"}, ["a", "b"]),
        (b"{}", {"records_layout": "keyed"}, ["key"]),
        (b"{}", {"records_layout": "columns"}, []),
    ],
)
def test_a_layout_without_rows_has_its_columns(
    desk: Desk, content: bytes, config: dict[str, Any], columns: list[str]
) -> None:
    assert desk.parse(content, "json", **config).rows == 0
    assert desk.table(content, "json", **config).column_names == columns


@pytest.mark.parametrize(
    ("content", "config", "reason"),
    [
        (b'{"a": [1, 2], "b": [1]}', {"records_layout": "columns"}, "the column 'b' has 1 value, but 'a' has 2"),
        (b'{"a": [1], "count": 1}', {"records_layout": "columns"}, "the column 'count' is not a list"),
        (b'{"a": [1], "a": [2]}', {"records_layout": "columns"}, "it has the column 'a' twice"),
        (b"[]", {"records_layout": "columns"}, "records_layout is columns, but the document is not an object"),
        (b"[]", {"records_layout": "keyed"}, "records_layout is keyed, but the document is not an object"),
        (b"{}", {"records_layout": "arrays"}, "records_layout is arrays, but the document is not a list"),
        (b'{"a": []}', {"records_layout": "keyed", "records_path": "a"}, "does not lead to an object at a"),
        (b'{"a": {}}', {"records_layout": "arrays", "records_path": "a"}, "does not lead to a list at a"),
        (b'[["a", "a"], [1, 2]]', {"records_layout": "arrays"}, "two columns are named 'a'"),
        (b"[[1, 2]]", {"records_layout": "arrays"}, "the first row is not an array of names"),
        (b'[{"a": 1}]', {"records_layout": "arrays"}, "the first row is not an array"),
        (b"[]", {"records_layout": "arrays", "names_path": "n"}, "names_path is n, but the document is not an object"),
        (b'{"d": []}', {"records_layout": "arrays", "names_path": "n", "records_path": "d"}, "n was not found"),
        (b'{"n": [1], "d": []}', {"records_layout": "arrays", "names_path": "n", "records_path": "d"}, "list of names"),
        (b'{"n": {"key": 1}}', {"records_layout": "keyed"}, "a field 'key' of its own; set key_column to another name"),
        (b'{"n": [1]}', {"records_layout": "keyed"}, "is not an object but a list"),
    ],
)
def test_a_document_of_another_layout_is_refused_with_the_reason(
    desk: Desk, content: bytes, config: dict[str, Any], reason: str
) -> None:
    assert reason in desk.refusal(content, "json", **config)


def test_json_lines_have_no_layout_of_one_object(desk: Desk) -> None:
    assert "JSON Lines have no records_layout keyed" in desk.refusal(b"{}", "jsonl", records_layout="keyed")


def test_arrays_of_another_length_are_invalid_rows(desk: Desk) -> None:
    content = b'[["a", "b"], [1], [1, 2, 3], {}' + b", [1, 2]" * 400 + b"]"
    parsed = desk.parse(content, "json", records_layout="arrays")
    assert parsed.rows == 400
    assert [row.reason for row in parsed.examples] == [
        "has 1 value, 2 are expected",
        "has 3 values, 2 are expected",
        "is not an array; records_layout is arrays",
    ]


def a_list(rows: int) -> bytes:
    return json.dumps([["a", "b"], *([at, "x" * 30] for at in range(rows))]).encode()


def an_object(rows: int) -> bytes:
    return json.dumps({f"k{at}": {"a": at, "b": "x" * 30} for at in range(rows)}).encode()


def columns(rows: int) -> bytes:
    return json.dumps({"a": list(range(rows)), "b": ["x" * 30] * rows}).encode()


@pytest.mark.parametrize(("layout", "make"), [("arrays", a_list), ("keyed", an_object), ("columns", columns)])
def test_rows_are_whole_wherever_the_blocks_of_the_file_end(
    desk: Desk, layout: str, make: Callable[[int], bytes]
) -> None:
    table = desk.table(make(12_345), "json", records_layout=layout)
    assert table["a"].to_pylist() == list(range(12_345))
    assert set(table["b"].to_pylist()) == {"x" * 30}
