"""What a flow reads of JSON and XML, from the fetch of a file to the table in a run."""

import json
from decimal import Decimal
from typing import Any

import pytest

from tests.flows.support import use
from tests.sources.readers.support import settle
from tests.sources.support import Desk

DECIMALS = b'[{"px":12345678901234567.89,"q":0.1},{"px":99999999999999999.99,"q":1.005}]'
TICKERS = json.dumps({str(at): {"cik_str": at, "ticker": f"T{at}"} for at in range(10_001)}).encode()
RATES = b"""<e:Envelope xmlns:e="urn:e" xmlns="urn:r"><e:subject>Rates</e:subject><Cube><Cube time='2026-11-27'>
<Cube currency='USD' rate='1.1602'/><Cube currency='JPY' rate='181.05'/></Cube></Cube></e:Envelope>"""
FILINGS = """<?xml version="1.0" encoding="ISO-8859-1" ?><feed xmlns="http://www.w3.org/2005/Atom"><title>Latest</title>
<entry><title>D\xe9mo</title><link href="urn:1"/><author><name>A</name></author><category term="8-K"/></entry></feed>"""
NAMESPACES = b"""<r xmlns:a="u:a" xmlns:b="u:b"><row id="1"><id>2</id><a:t>x</a:t><b:t>y</b:t>
<n xsi:nil="true" xmlns:xsi="u:x"/></row><row id="3"/></r>"""
CASES: dict[str, tuple[str, bytes, dict[str, Any], dict[str, list[Any]]]] = {
    "decimals": (
        "x.json", DECIMALS, {"columns": {"px": "decimal"}},
        {"px": [Decimal("12345678901234567.89"), Decimal("99999999999999999.99")], "q": [0.1, 1.005]},
    ),
    "tickers": (
        "x.json", TICKERS, {"records_layout": "keyed"},
        {
            "key": [str(at) for at in range(10_001)],
            "cik_str": list(range(10_001)),
            "ticker": [f"T{at}" for at in range(10_001)],
        },
    ),
    "rates": ("x.xml", RATES, {"row_tag": "Cube"}, {"currency": ["USD", "JPY"], "rate": [1.1602, 181.05]}),
    "filings": (
        "x.xml", FILINGS.encode("iso-8859-1"), {"row_tag": "entry"},
        {"title": ["D\xe9mo"], "link.href": ["urn:1"], "author.name": ["A"], "category.term": ["8-K"]},
    ),
    "namespaces": (
        "x.xml", NAMESPACES, {},
        {"id": [1, 3], "id.text()": [2, None], "a:t": ["x", None], "b:t": ["y", None], "n": [None, None]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_a_run_reads_every_value_of_json_and_xml_as_it_is_in_the_file(desk: Desk, case: str) -> None:
    name, content, parser_config, expected = CASES[case]
    settle(desk.file(f"{case}-{name}", content))
    source = await desk.register("file", {"path": f"{case}-{name}"}, parser_config=parser_config)
    assert use(source)[1].to_arrow().to_pydict() == expected
