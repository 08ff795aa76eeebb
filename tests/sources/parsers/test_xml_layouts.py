"""Layouts of XML as publishers use them; the files are of our own making."""

from datetime import UTC, date, datetime
from decimal import Decimal

from tests.sources.parsers.support import Desk

# European Central Bank, eurofxref-daily.xml and eurofxref-hist.xml
RATES = b"""<?xml version="1.0" encoding="UTF-8"?>
<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01"
 xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">
 <gesmes:subject>Reference rates</gesmes:subject>
 <gesmes:Sender><gesmes:name>European Central Bank</gesmes:name></gesmes:Sender>
 <Cube><Cube time="2026-11-27"><Cube currency="USD" rate="1.1602"/><Cube currency="JPY" rate="181.05"/></Cube>
 <Cube time="2026-11-26"><Cube currency="USD" rate="1.1611"/></Cube></Cube></gesmes:Envelope>"""
# SEC, browse-edgar?action=getcurrent&output=atom
FILINGS = """<?xml version="1.0" encoding="ISO-8859-1" ?>
<feed xmlns="http://www.w3.org/2005/Atom"><title>Latest Filings</title><author><name>Webmaster</name></author>
<entry><title>4 - D\xe9mo (0000000001) (Reporting)</title>
<link rel="alternate" type="text/html" href="https://www.sec.gov/Archives/edgar/data/1/1-index.htm"/>
<summary type="html"> &lt;b&gt;Filed:&lt;/b&gt; 2026-11-27</summary><author><name>A</name><email>a@b</email></author>
<updated>2026-11-27T17:00:00-05:00</updated><category scheme="https://www.sec.gov/" label="form type" term="4"/>
<category term="other"/><id>urn:1</id></entry></feed>""".encode("iso-8859-1")
# U.S. Treasury, daily treasury yield curve
YIELDS = b"""<?xml version="1.0" encoding="utf-8" standalone="yes"?>
<feed xml:base="http://x/" xmlns:d="http://schemas.microsoft.com/ado/2007/08/dataservices"
 xmlns:m="http://schemas.microsoft.com/ado/2007/08/dataservices/metadata" xmlns="http://www.w3.org/2005/Atom">
<title type="text">DailyTreasuryYieldCurveRateData</title>
<entry><id>http://x/(1)</id><title type="text"></title><author><name /></author><content type="application/xml">
<m:properties><d:NEW_DATE m:type="Edm.DateTime">2026-11-27T00:00:00</d:NEW_DATE>
<d:BC_1MONTH m:type="Edm.Double">3.91</d:BC_1MONTH><d:BC_2MONTH m:type="Edm.Double" m:null="true" /></m:properties>
</content></entry>
<entry><id>http://x/(2)</id><title type="text"></title><author><name /></author><content type="application/xml">
<m:properties><d:NEW_DATE m:type="Edm.DateTime">2026-11-26T00:00:00</d:NEW_DATE>
<d:BC_1MONTH m:type="Edm.Double">3.9</d:BC_1MONTH><d:BC_2MONTH m:type="Edm.Double">3.85</d:BC_2MONTH></m:properties>
</content></entry></feed>"""


def test_reference_rates_have_a_row_for_each_currency(desk: Desk) -> None:
    assert desk.table(RATES, "xml", row_tag="Cube", columns={"rate": "decimal"}).to_pydict() == {
        "currency": ["USD", "JPY", "USD"],
        "rate": [Decimal("1.1602"), Decimal("181.05"), Decimal("1.1611")],
    }
    days = desk.table(RATES, "xml", row_tag="Cube", parent_attributes=["time"])
    assert days["time"].to_pylist() == [date(2026, 11, 27), date(2026, 11, 27), date(2026, 11, 26)]
    outer = desk.table(RATES, "xml", row_path="Envelope/Cube/Cube")
    assert outer.to_pydict() == {
        "time": [date(2026, 11, 27), date(2026, 11, 26)],
        "Cube.currency": ["USD", "USD"],
        "Cube.rate": [1.1602, 1.1611],
        "Cube[2..]": ['[{"@currency": "JPY", "@rate": "181.05"}]', None],
    }


def test_filings_have_their_links_and_categories(desk: Desk) -> None:
    (row,) = desk.table(FILINGS, "xml", row_tag="entry").to_pylist()
    assert row == {
        "title": "4 - D\xe9mo (0000000001) (Reporting)",
        "link.rel": "alternate",
        "link.type": "text/html",
        "link.href": "https://www.sec.gov/Archives/edgar/data/1/1-index.htm",
        "summary.type": "html",
        "summary": " <b>Filed:</b> 2026-11-27",
        "author.name": "A",
        "author.email": "a@b",
        "updated": datetime(2026, 11, 27, 22, tzinfo=UTC),
        "category.scheme": "https://www.sec.gov/",
        "category.label": "form type",
        "category.term": 4,
        "category[2..]": '[{"@term": "other"}]',
        "id": "urn:1",
    }


def test_yields_are_numbers_or_null(desk: Desk) -> None:
    table = desk.table(YIELDS, "xml", row_tag="properties")
    assert table.to_pydict() == {
        "d:NEW_DATE": [datetime(2026, 11, 27, tzinfo=UTC), datetime(2026, 11, 26, tzinfo=UTC)],
        "d:BC_1MONTH": [3.91, 3.9],
        "d:BC_2MONTH": [None, 3.85],
    }
    namespaces = {"": "http://schemas.microsoft.com/ado/2007/08/dataservices"}
    plain = desk.table(YIELDS, "xml", row_path="feed/entry/content/properties", namespaces=namespaces)
    assert plain.column_names == ["NEW_DATE", "BC_1MONTH", "BC_2MONTH"]
    entries = desk.table(YIELDS, "xml", row_tag="entry", columns={"content.m:properties.d:BC_2MONTH": "decimal"})
    assert entries["content.m:properties.d:BC_2MONTH"].to_pylist() == [None, Decimal("3.85")]
