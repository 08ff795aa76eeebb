import gzip
import io
import random
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.sources.parsers import ParserType

from tests.sources.parsers import test_json_layouts as of_json
from tests.sources.parsers import test_xml_layouts as of_xml
from tests.sources.parsers.support import Desk
from tests.sources.parsers.test_compression import ROWS, STREAMS, zipped


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"a": list(range(500)), "b": [f"text {n % 9}" for n in range(500)]}), out)
    return out.getvalue()


SEEDS = {
    "csv": b'a,b\n1,"x\ny"\n2,3\n',
    "psv": "a|b\nä|2\n".encode() * 3,
    "tsv": b"a\tb\n1\t2\n",
    "json": b'{"data": {"rows": [{"a": 1, "b": [1.5, null]}, {"a": "\\u00e4"}]}}',
    "jsonl": b'{"a": 1}\n{"a": "x", "b": {}}\n',
    "xml": b'<?xml version="1.0"?>\n<r xmlns:n="u"><row n:a="1"><b>x &amp; y</b></row><row><b/></row></r>',
    "parquet": parquet(),
}


def mutated(content: bytes, choose: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(choose.randint(1, 6)):
        at = choose.randrange(len(data) + 1)
        match choose.randrange(4):
            case 0:
                data[at : at + 1] = bytes([choose.randrange(256)])
            case 1:
                del data[at : at + choose.randint(1, 8)]
            case 2:
                data[at:at] = choose.randbytes(choose.randint(1, 8))
            case _:
                data[at:at] = choose.choice([b"\0", b'"', b"\n", b"[", b"{", b"<", b"&", b"\xff\xfe", b"\xed\xa0\x80"])
    return bytes(data)


def try_it(desk: Desk, content: bytes, kind: str, name: str, **config: object) -> None:
    for act in (desk.parse, desk.table):
        if (failure := failure_of(lambda: act(content, kind, name, **config))) is not None:  # noqa: B023
            assert failure.category is ErrorCategory.PARSE
            assert len(failure.sentence) < 400


def failure_of(act: Callable[[], object]) -> FetchFailure | None:
    try:
        act()
    except FetchFailure as failure:
        return failure
    return None


@pytest.mark.parametrize("kind", list(ParserType))
def test_random_bytes_raise_only_parse_failures(desk: Desk, kind: str) -> None:
    choose = random.Random(kind)
    config = {"columns": {"a": "integer", "b": "timestamp"}, "records_path": "data.rows"}
    for number in range(120):
        content = choose.randbytes(choose.randrange(200)) if number % 4 == 0 else mutated(SEEDS[kind], choose)
        try_it(desk, content, kind, "x", **(config if number % 2 else {}))


LAYOUTS: list[tuple[str, bytes, dict[str, object]]] = [
    ("json", of_json.TICKERS, {"records_layout": "keyed"}),
    ("json", of_json.SUBMISSIONS, {"records_layout": "columns", "records_path": "filings.recent"}),
    ("json", of_json.CENSUS, {"records_layout": "arrays"}),
    ("json", of_json.EXCHANGES, {"records_layout": "arrays", "records_path": "data", "names_path": "fields"}),
    ("json", of_json.WEEKLY, {"flatten": True, "columns": {"totalNotionalSum": "decimal"}}),
    (
        "jsonl",
        b'["a", "b"]\n[1e5, 12345678901234567.89]\n[-0.0, {"c": 12345678901234567891}]',
        {"records_layout": "arrays"},
    ),
    ("xml", of_xml.RATES, {"row_tag": "Cube", "parent_attributes": ["time"], "columns": {"rate": "decimal"}}),
    ("xml", of_xml.FILINGS, {"row_tag": "entry"}),
    ("xml", of_xml.YIELDS, {"row_path": "feed/entry/content", "namespaces": {"": "http://x/"}}),
]


@pytest.mark.parametrize(("kind", "seed", "config"), LAYOUTS)
def test_random_bytes_in_any_layout_raise_only_parse_failures(
    desk: Desk, kind: str, seed: bytes, config: dict[str, object]
) -> None:
    choose = random.Random(repr(config))
    for _ in range(60):
        try_it(desk, mutated(seed, choose), kind, "x", **config)


@pytest.mark.parametrize("suffix", [*STREAMS, ".zip"])
def test_damaged_compressed_files_raise_only_parse_failures(desk: Desk, suffix: str) -> None:
    choose = random.Random(suffix)
    compress = STREAMS.get(suffix)
    whole = compress(ROWS) if compress else zipped(("x.csv", ROWS))
    for _ in range(120):
        try_it(desk, mutated(whole, choose), "csv", f"x.csv{suffix}", max_expanded_bytes=1_000_000)


@pytest.mark.parametrize("encoding", ["ascii", "utf-7", "utf-16", "shift_jis", "gb18030", "cp1252", "iso2022_jp", "hz"])
def test_random_bytes_in_any_encoding_raise_only_parse_failures(desk: Desk, encoding: str) -> None:
    choose = random.Random(encoding)
    for _ in range(30):
        try_it(desk, mutated("a,b\nä,2\n".encode(encoding, "ignore"), choose), "csv", "x", encoding=encoding)


@pytest.mark.parametrize("kind", ["json", "jsonl", "xml"])
def test_deep_nesting_is_a_parse_failure(desk: Desk, kind: str) -> None:
    opening = b"<a>" if kind == "xml" else b'{"a":[' if kind == "json" else b"["
    assert desk.refusal(opening * 200_000, kind)
    assert desk.refusal(b"[" + gzip.decompress(gzip.compress(opening * 5_000)), kind)
