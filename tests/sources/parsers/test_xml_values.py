"""What a flow reads of each value in XML, beside what ElementTree reads."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from tests.sources.parsers.support import Desk


def rows(*each: str, root: str = "r") -> bytes:
    return f"<{root}>{''.join(f'<row>{one}</row>' for one in each)}</{root.split()[0]}>".encode()


# What is in the file, the type of the column, and the value in the table.
INFERRED: list[tuple[str, pa.DataType, Any]] = [
    ("5", pa.int64(), 5),
    ("9223372036854775807", pa.int64(), 9223372036854775807),
    ("9007199254740993", pa.int64(), 9007199254740993),
    ("1.005", pa.float64(), 1.005),
    ("007", pa.string(), "007"),
    ("true", pa.bool_(), True),
    ("2026-11-27", pa.date32(), date(2026, 11, 27)),
    ("2026-11-27T17:00:00-05:00", pa.timestamp("us", "UTC"), datetime(2026, 11, 27, 22, tzinfo=UTC)),
    ("2026-11-27T17:00:00.123456", pa.timestamp("us", "UTC"), datetime(2026, 11, 27, 17, 0, 0, 123456, UTC)),
    (" x\n y ", pa.string(), " x\n y "),
    ("", pa.string(), ""),
    (" ", pa.string(), " "),
    ("<![CDATA[<a>&amp;]]> &lt;&#228;&#x20ac;", pa.string(), "<a>&amp; <\xe4\u20ac"),
    ("a<!-- no -->b<?no no?>c", pa.string(), "abc"),
]

# A configured type, what is in the file, and the value in the table; None: refused with the name of the column.
CONFIGURED: list[tuple[str, str, Any]] = [
    ("decimal", "12345678901234567.89", Decimal("12345678901234567.89")),
    ("decimal", "\n  0.10\n", Decimal("0.1")),
    ("decimal", "0.12345678901", None),
    ("decimal", "1e400", None),
    ("integer", " 5 ", 5),
    ("integer", "9223372036854775808", None),
    ("integer", "1.0", None),
    ("string", "007 ", "007 "),
    ("string", "12345678901234567891", "12345678901234567891"),
    ("date", "2026-11-27", date(2026, 11, 27)),
    ("date", "27.11.2026", None),
    ("boolean", "yes", None),
]


@pytest.mark.parametrize(("text", "type_", "expected"), INFERRED)
def test_a_column_has_the_type_and_the_value_of_its_text(
    desk: Desk, text: str, type_: pa.DataType, expected: Any
) -> None:
    content = rows(f"<a>{text}</a>")
    column = desk.table(content, "xml")["a"]
    assert (column.type, column.to_pylist()) == (type_, [expected])
    if pa.types.is_string(type_):
        assert expected == ElementTree.fromstring(content).findtext("row/a")  # noqa: S314
        assert desk.table(rows(f"<b><a>{text}</a></b>"), "xml")["b.a"].to_pylist() == [expected]


@pytest.mark.parametrize(("type_", "text", "expected"), CONFIGURED)
def test_a_configured_column_has_each_value_exactly_or_refuses_the_row(
    desk: Desk, type_: str, text: str, expected: Any
) -> None:
    content = rows(f"<a>{text}</a>", *["<n>1</n>"] * 100)
    parsed = desk.parse(content, "xml", columns={"a": type_})
    table = desk.table(content, "xml", columns={"a": type_})
    if expected is None:
        assert [row.reason.partition("' is not ")[0] for row in parsed.examples] == [f"column a: '{text.strip()}"]
        assert table.to_pydict() == {"n": [1] * 100, "a": [None] * 100}
    else:
        assert (parsed.bad_rows, table["a"].drop_null().to_pylist()) == (0, [expected])


def test_the_innermost_elements_of_a_tag_are_rows_wherever_they_are(desk: Desk) -> None:
    content = b"<r><c t='1'><c a='1'/>x<d><c a='2'><e/></c></d></c><c a='3'><f><g>y</g></f></c></r>"
    table = desk.table(content, "xml", row_tag="c")
    assert table.to_pydict() == {"a": [1, 2, 3], "e": [None, "", None], "f.g": [None, None, "y"]}
    found = ElementTree.fromstring(content).iter("c")  # noqa: S314
    assert [int(one.get("a", 0)) for one in found if one.find(".//c") is None] == [1, 2, 3]


def test_a_path_chooses_among_elements_of_the_same_name(desk: Desk) -> None:
    content = b"<r xmlns:x='u'><x:c a='1'><c a='2'/></x:c><d><c a='3'/></d></r>"
    for path, found in (("r/c", [1]), ("/r/x:c/c", [2]), ("r/d/c", [3]), ("r", [None])):
        table = desk.table(content, "xml", row_path=path)
        assert table.num_rows == 1
        assert (table["a"].to_pylist() if "a" in table.column_names else [None]) == found
    assert desk.parse(content, "xml", row_path="r/d/e").rows == 0
    for path in ("r/e/c", "x", "d/c"):
        assert f"row_path was not found: {path}" in desk.refusal(content, "xml", row_path=path)


def test_attributes_of_enclosing_elements_are_columns_if_they_are_wanted(desk: Desk) -> None:
    content = b"<r v='0'><d at='1' v='1'><p><i n='a'/></p></d><d at='2'><i n='b' at='x'/></d><i n='c'/></r>"
    table = desk.table(content, "xml", row_tag="i", parent_attributes=["at", "v"])
    assert table.to_pydict() == {
        "at": [1, 2, None], "v": [1, 0, 0], "n": ["a", "b", "c"], "@at": [None, "x", None],
    }  # fmt: skip


def test_elements_that_are_repeated_are_apart_and_whole(desk: Desk) -> None:
    content = rows(
        '<k>1</k><k>2</k><k/><p v="a"><n>A</n><e>e &amp; "e"</e></p><p><n>B</n></p>', '<k>["2", ""]</k><p><n>C</n></p>'
    )
    assert desk.table(content, "xml").to_pydict() == {
        "k": ["1", '["2", ""]'],
        "p.v": ["a", None],
        "p.n": ["A", "C"],
        "p.e": ['e & "e"', None],
        "k[2..]": ['["2", ""]', None],
        "p[2..]": ['[{"n": "B"}]', None],
    }
    nested = rows(
        '<l><i x="1">a</i><i x="2">b</i><i>c</i></l>',
        "<l><i><j>1</j><j>2</j></i><i><j>3</j><j>4</j></i><i><a.b>5</a.b><a><b>6</b></a></i></l>",
    )
    assert desk.table(nested, "xml").to_pydict() == {
        "l.i.x": [1, None],
        "l.i": ["a", None],
        "l.i[2..]": [
            '[{"@x": "2", "text()": "b"}, "c"]',
            '[{"j": "3", "j[2..]": "[\\"4\\"]"}, {"a.b": "5", "a/b": "6"}]',
        ],
        "l.i.j": [None, 1],
        "l.i.j[2..]": [None, '["2"]'],
    }


def test_text_and_elements_side_by_side_are_one_value_with_the_xml(desk: Desk) -> None:
    content = rows('<n>Paid <b x="&quot;1">1 &lt; 2</b>50</n><m>y</m>')
    assert desk.table(content, "xml").to_pydict() == {"n": ['Paid <b x="&quot;1">1 &lt; 2</b>50'], "m": ["y"]}
    assert desk.table(b"<r><v>Paid <a>1</a></v><v>2</v></r>", "xml").to_pydict() == {
        "a": [1, None],
        "v": ["Paid <a>1</a>", "2"],
    }


def test_an_empty_element_an_absent_one_and_a_null_differ_where_the_type_allows(desk: Desk) -> None:
    xsi = 'r xmlns:i="http://www.w3.org/2001/XMLSchema-instance" xmlns:xs="u"'
    content = rows('<a/><b i:nil="true"/><c i:type="xs:int">1</c><d x="1"/><e i:nil="false"/>', "<c/>", root=xsi)
    table = desk.table(content, "xml", columns={"c": "integer", "a": "string"})
    assert table.to_pydict() == {
        "a": ["", None], "b": [None, None], "c": [1, None], "d.x": [1, None], "e": ["", None],
    }  # fmt: skip


def test_attributes_and_children_of_the_same_name_stay_apart(desk: Desk) -> None:
    assert desk.table(rows("<x/>").replace(b"<row>", b'<row id="1"><id>2</id><x id="3"/>'), "xml")[
        "id.text()"
    ].to_pylist() == [2]
    later = b'<r><row id="1"/><row><id>2</id></row><row id="3"><id>4</id></row></r>'
    assert desk.table(later, "xml").to_pydict() == {"id": [1, None, 3], "id.text()": [None, 2, 4]}
    earlier = b'<r><row><id>2</id></row><row id="3"><id>4</id></row></r>'
    assert desk.table(earlier, "xml").to_pydict() == {"id": [2, 4], "@id": [None, 3]}
    dotted = b"<r><row><a.b>1</a.b><a><b>2</b></a></row></r>"
    assert desk.table(dotted, "xml").to_pydict() == {"a.b": [1], "a.b.text()": [2]}
    text = b"<r><v>x<v>1</v></v></r>"
    assert desk.table(text, "xml").to_pydict() == {"v": [1], "v.text()": ["x<v>1</v>"]}
    three = rows('<a b="1"><b>2</b></a><a.b>3</a.b>')
    assert "two different values have the path 'a.b'" in desk.refusal(three, "xml")


def test_names_of_different_namespaces_stay_apart(desk: Desk) -> None:
    same = b"""<r xmlns:a="A" xmlns:b="B"><a:row><a:t>1</a:t><b:t>2</b:t><t>3</t><t xmlns="C">4</t></a:row>
        <b:row><a:t>5</a:t><b:t>6</b:t></b:row></r>"""
    assert desk.table(same, "xml", row_tag="row").to_pydict() == {
        "t": [1, None], "b:t": [2, 6], "{}t": [3, None], "{C}t": [4, None], "a:t": [None, 5],
    }  # fmt: skip
    prefixes = b"""<r><row xmlns:a="A"><a:t>1</a:t></row><row xmlns:a="B"><a:t>2</a:t></row>
        <row xmlns:c="A" c:x="4"><c:t>3</c:t></row></r>"""
    assert desk.table(prefixes, "xml").to_pydict() == {
        "a:t": [1, None, 3], "{B}t": [None, 2, None], "a:x": [None, None, 4],
    }  # fmt: skip
    assert desk.parse(prefixes, "xml", namespaces={"q": "A", "a": "B"}).columns == ("q:t", "a:t", "q:x")
    # An attribute without a prefix is in no namespace.
    assert desk.parse(prefixes, "xml", namespaces={"": "A"}).columns == ("t", "a:t", "c:x")
    undeclared = b'<r><row><p:t xml:lang="de">1</p:t><t>2</t></row></r>'
    assert desk.table(undeclared, "xml").to_pydict() == {"p:t.xml:lang": ["de"], "p:t": [1], "t": [2]}


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "windows-1252", "koi8-r", "shift_jis", "gbk", "euc-jp", "big5"],
)
def test_xml_is_read_in_the_encoding_that_it_declares(desk: Desk, encoding: str) -> None:
    text = {"koi8-r": "\u0449", "gbk": "\u4e2d", "big5": "\u4e2d"}.get(encoding, "\xe4")
    text = "\u65e5\u672c" if encoding in ("shift_jis", "euc-jp") else text
    declared = encoding.removesuffix("-sig")
    content = f'<?xml version="1.0" encoding="{declared}"?>\n<r><row a="{text}"/></r>'.encode(encoding)
    assert desk.table(content, "xml")["a"].to_pylist() == [text]


@pytest.mark.parametrize("declared", ["ISO-8859-1", "windows-1252", "shift_jis", "utf-16", "utf-8"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_wins_over_the_encoding_that_xml_declares(desk: Desk, encoding: str, declared: str) -> None:
    content = f'<?xml version="1.0" encoding="{declared}"?>\n<r><row a="ü漢"/></r>'.encode(encoding)
    assert desk.table(content, "xml")["a"].to_pylist() == ["ü漢"]


def test_rows_are_whole_wherever_the_blocks_of_the_file_end(desk: Desk) -> None:
    text = "\xe4&amp;x" * 30
    content = rows(*(f'<a>{at}</a><b c="{at}">{text * (at % 9)}</b>' for at in range(8_000)))
    table = desk.table(content, "xml", columns={"b": "string"})
    assert table["a"].to_pylist() == table["b.c"].to_pylist() == list(range(8_000))
    assert table["b"].to_pylist()[:20] == [text.replace("&amp;", "&") * (at % 9) or None for at in range(20)]


def test_a_row_has_no_more_columns_than_a_table(desk: Desk) -> None:
    assert desk.parse(rows("".join(f"<a{at}/>" for at in range(10_000))), "xml").rows == 1
    assert "more than 10,000 columns" in desk.refusal(rows("".join(f"<a{at}/>" for at in range(10_001))), "xml")
