import json

import pytest

from tests.sources.parsers.support import Desk, lines_of


def test_an_array_of_objects_is_counted_with_its_columns(desk: Desk) -> None:
    parsed = desk.parse(b'[{"a": 1}, 5, {"b": {"c": [1, 2]}}, null]', "json")
    assert (parsed.rows, parsed.columns) == (2, ("a", "b"))
    assert [(row.line, row.reason) for row in parsed.examples] == [
        (2, "is not an object but a number"),
        (4, "is not an object but null"),
    ]


def test_records_are_found_by_their_path_and_one_object_is_one_record(desk: Desk) -> None:
    content = b'{"meta": {"rows": [1]}, "data": {"more": [[{}]], "rows": [{"a": 1}, {"a": 2}], "n": 2}, "z": null}'
    assert desk.parse(content, "json", records_path="data.rows").rows == 2
    assert desk.parse(content, "json").rows == 1
    assert desk.parse(b"[]", "json").rows == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the JSON ends early"),
        (b'[{"a": 1}, {"a": ', "the JSON ends early, in record 2"),
        (b'[{"a": 1}, {"a": "x', "the JSON ends early, in record 2"),
        (b'[{"a": 1}', "the JSON ends early, in record 1"),
        (b'[{"a": 1} {"a": 2}]', "it is not well-formed JSON, in record 1"),
        (b'[{"a": NaN}]', "it is not well-formed JSON, in record 1"),
        (b'[{"a": 1}] x', "there is text after the end of the JSON"),
        (b'[{"a": "\xff"}]', "line 1 is not valid utf-8"),
        (b'[{"\\ud800": 1}]', "the name of a column is not valid text"),
        (b"[1, 2]", "all rows are invalid"),
    ],
)
def test_json_that_is_broken_is_a_sentence(desk: Desk, content: bytes, reason: str) -> None:
    assert reason in desk.refusal(content, "json")


@pytest.mark.parametrize("path", ["data.none", "none", "data", "data.rows.x", "data.n"])
def test_a_path_that_leads_to_no_list_does_not_parse(desk: Desk, path: str) -> None:
    assert "records_path does not lead to" in desk.refusal(
        b'{"data": {"rows": [{"a": 1}], "n": 2}}', "json", records_path=path
    )


def test_records_are_whole_wherever_the_blocks_of_the_file_end(desk: Desk) -> None:
    records = [{"a": number, "text": 'ä\\"x' * (number % 50)} for number in range(20_000)]
    parsed = desk.parse(json.dumps(records, ensure_ascii=False).encode(), "json", columns={"a": "integer"})
    assert (parsed.rows, parsed.bad_rows) == (20_000, 0)


def test_lines_of_json_are_records_and_others_are_bad_rows(desk: Desk) -> None:
    content = b'{"a": 1}\r\n\n  \n[1]\n{"a": NaN}\n{"a": \n{"a": 2}'
    parsed = desk.parse(content, "jsonl")
    assert (parsed.rows, parsed.columns) == (2, ("a",))
    assert [(row.line, row.reason) for row in parsed.examples] == [
        (4, "is not an object but a list"),
        (5, "is not valid JSON"),
        (6, "is not valid JSON"),
    ]


def test_values_in_records_must_be_of_their_columns_type(desk: Desk) -> None:
    lines = [
        {"n": 1, "s": "x", "d": "2025-12-15"},
        {"n": "2", "s": None},
        {"n": 1.5},
        {"s": 5},
        {"d": "15.12.2025"},
        {"n": True},
        {"n": 2**70},
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    parsed = desk.parse(content, "jsonl", columns={"n": "integer", "s": "string", "d": "date"})
    assert (parsed.rows, lines_of(parsed)) == (2, [3, 4, 5, 6, 7])
    assert parsed.examples[1].reason == "column s: '5' is not a string"


def test_a_line_over_the_limit_is_refused(desk: Desk) -> None:
    assert "line 2 is longer than 16 MB" in desk.refusal(b'{}\n{"a": "' + b"x" * 18_000_000, "jsonl")
    assert "longer than 16 MB" in desk.refusal(b'[{"a": "' + b"x" * 18_000_000 + b'"}]', "json")


XML = b"""<?xml version="1.0"?>
<x:feed xmlns:x="urn:x">
  <x:row id="1"><x:name>A <b>bold</b></x:name><x:n>1</x:n></x:row>
  <!-- between -->
  <x:row id="2">
    <x:name>B</x:name><x:n>two</x:n></x:row>
</x:feed>
"""


def test_children_of_the_root_are_rows_with_attributes_and_children_as_columns(desk: Desk) -> None:
    parsed = desk.parse(XML, "xml", columns={"n": "integer"})
    assert (parsed.rows, parsed.columns) == (1, ("id", "name", "n"))
    assert [(row.line, row.reason) for row in parsed.examples] == [(5, "column n: 'two' is not a 64-bit integer")]
    assert desk.table(XML, "xml").to_pydict() == {"id": [1, 2], "name": ["A <b>bold</b>", "B"], "n": ["1", "two"]}


def test_rows_of_a_tag_are_found_at_any_depth(desk: Desk) -> None:
    content = b"<a><head><k>1</k></head><list><row><k>1</k></row><row><k>2</k></row></list></a>"
    assert desk.parse(content, "xml", row_tag="row").rows == 2
    assert desk.parse(content, "xml").rows == 2
    assert desk.parse(content, "xml", row_tag="none").rows == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"<a><b/>", "not well-formed"),
        (b"<a><b></a>", "line 1 is not well-formed XML"),
        (b"<a>\n<b>\n", "line 3 is not well-formed XML"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]><a><b>&x;</b></a>', "document type or entities"),
        (b'<!DOCTYPE a SYSTEM "http://127.0.0.1/x"><a><b/></a>', "document type or entities"),
        (b'<?xml version="1.0" encoding="none"?><a/>', "unknown or wrong encoding"),
    ],
)
def test_xml_that_is_broken_or_dangerous_is_refused(desk: Desk, content: bytes, reason: str) -> None:
    assert reason in desk.refusal(content, "xml")


def test_xml_is_in_the_encoding_that_it_declares_unless_another_is_configured(desk: Desk) -> None:
    declared = '<?xml version="1.0" encoding="iso-8859-1"?><a><b><c>\xe4</c></b></a>'.encode("latin-1")
    assert desk.table(declared, "xml")["c"].to_pylist() == ["\xe4"]
    other = '<?xml version="1.0" encoding="utf-8"?><a><b><c>\xe4</c></b></a>'.encode("cp1252")
    assert desk.table(other, "xml", encoding="cp1252")["c"].to_pylist() == ["\xe4"]
    assert desk.table('<a><b c="\xe4"/></a>'.encode("utf-16"), "xml")["c"].to_pylist() == ["\xe4"]


@pytest.mark.parametrize(
    ("kind", "content", "path"),
    [
        ("json", '[{"{}": 1}]', ""),
        ("jsonl", '{"{}": 1}', ""),
        ("xml", "<a><b><{}>1</{}></b></a>", ""),
        ("xml", '<a><b {}="1"/></a>', ""),
        ("xml", "<a><b><c><{}/></c></b></a>", "c."),
        ("csv", "{}\n1\n", ""),
    ],
)
def test_a_name_is_as_long_as_a_column_may_be_named_and_no_longer(
    desk: Desk, kind: str, content: str, path: str
) -> None:
    longest = "x" * (1_000 - len(path))
    assert desk.parse(content.replace("{}", longest).encode(), kind).columns == (path + longest,)
    refused = desk.refusal(content.replace("{}", longest + "x").encode(), kind)
    assert "xxx…' is longer than 1,000 characters" in refused
    assert len(refused) < 200


def test_a_row_of_xml_over_the_limit_is_refused(desk: Desk) -> None:
    content = b"<a><b><c>" + b"x" * 18_000_000 + b"</c></b></a>"
    assert "line 1 is longer than 16 MB" in desk.refusal(content, "xml")
    assert "longer than 16 MB" in desk.refusal(b"<a><!--" + b"x" * 20_000_000 + b"--></a>", "xml")


def test_records_without_a_required_column_do_not_parse(desk: Desk) -> None:
    for kind, content in (("json", b'[{"a": 1}]'), ("jsonl", b'{"a": 1}'), ("xml", b"<r><x><a>1</a></x></r>")):
        assert "the required column 'b' is missing" in desk.refusal(content, kind, required_columns=["a", "b"])
