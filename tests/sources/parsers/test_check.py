"""The check is called regularly while a file is parsed, and can end it."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.sources.parsers import ParserConfig, ParserType, parse

MOST_CALLS = 5
TIMES = 400_000
ROWS = pa.table({"a": list(range(TIMES)), "b": [f"text {number}" for number in range(TIMES)]})


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(ROWS, out, compression="none")
    return out.getvalue()


def csv() -> bytes:
    return b"a,b\n" + b"1234,text of 20 letters\n" * TIMES


FILES: dict[str, Callable[[], bytes]] = {
    "x.csv": csv,
    "x.csv.gz": lambda: gzip.compress(csv(), 1),
    "x.json": lambda: json.dumps([{"a": "text of 20 letters"}] * TIMES).encode(),
    "x.jsonl": lambda: b'{"a": "text of 20 letters"}\n' * TIMES,
    "x.xml": lambda: b"<rows>" + b"<row><a>text of 20 letters</a></row>" * TIMES + b"</rows>",
    "x.parquet": parquet,
    "x.parquet.gz": lambda: gzip.compress(parquet(), 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_parsing_ends_with_the_error_that_the_check_raises(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name]())
    late = FetchFailure(ErrorCategory.SOURCE, "It is late.")
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > MOST_CALLS:
            raise late

    with pytest.raises(FetchFailure) as caught:
        parse(tmp_path / name, name, ParserType(name.split(".")[1]), ParserConfig(), check)
    assert caught.value is late
    assert calls == MOST_CALLS + 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_check_can_also_end_the_search_for_the_lines_of_invalid_rows(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(csv() + b"1\n")
    config = ParserConfig()
    calls = [0, 0]

    def count() -> None:
        calls[0] += 1

    def end_later() -> None:
        calls[1] += 1
        if calls[1] == calls[0]:
            raise FetchFailure(ErrorCategory.SOURCE, "It is late.")

    assert parse(tmp_path / "x", "x", ParserType.CSV, config, count).examples[0].line == TIMES + 2
    with pytest.raises(FetchFailure, match="late"):
        parse(tmp_path / "x", "x", ParserType.CSV, config, end_later)
