"""The rows about delimited text: a clean file, and a file of quoted values with invalid rows."""

import csv
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pyarrow.csv as pa_csv
from spine.sources.parsers import ParserConfig, ParserType, parse

from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import RATIO, Figure, Row, at_least
from tests.benchmarks.finra_rows import generate

# One row of so many has a value too few.
INVALID_EVERY = 1_000


def measure(bench: Bench) -> None:
    """Add all rows."""
    weekly, quoted = bench.folder / "weekly.psv", bench.folder / "quoted.csv"
    generate(weekly, bench.scale.parsed_rows)
    _write_quoted(quoted, bench.scale.quoted_rows)

    def by_spine(path: Path, kind: ParserType) -> Callable[[], None]:
        return lambda: None if parse(path, path.name, kind, ParserConfig()).rows else _fail()

    _add(
        bench,
        f"parsing {bench.scale.parsed_rows:,} rows",
        bench.scale.parsed_rows,
        by_spine(weekly, ParserType.PSV),
        "pyarrow's reader alone",
        lambda: _read_with_pyarrow(weekly),
    )
    _add(
        bench,
        f"parsing {bench.scale.quoted_rows:,} quoted rows, one of {INVALID_EVERY:,} invalid",
        bench.scale.quoted_rows,
        by_spine(quoted, ParserType.CSV),
        "csv.reader",
        lambda: _read_with_csv(quoted),
        is_aimed=True,
    )


def _add(
    bench: Bench,
    what: str,
    rows: int,
    ours: Callable[[], None],
    compared: str,
    theirs: Callable[[], None],
    *,
    is_aimed: bool = False,
) -> None:
    spent: dict[Callable[[], None], list[float]] = {ours: [], theirs: []}
    for _ in range(bench.scale.fetches):
        for read, seconds in spent.items():
            began = time.perf_counter()
            read()
            seconds.append(time.perf_counter() - began)
    figures = [(Figure(rows / median(seconds) / 1e6, "M rows/s"),) for seconds in spent.values()]
    aims = (at_least(1, RATIO),) if is_aimed else ()
    bench.add(Row(what, figures[0], compared, figures[1], aims))


def _write_quoted(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("id,name,price,day\n")
        for number in range(rows):
            price = "" if number % INVALID_EVERY == 17 else f',"{number % 977}.25"'
            file.write(f'"{number}","Issue ""{number}"", Inc"{price},"2025-12-15"\n')


def _read_with_pyarrow(path: Path) -> None:
    for _ in pa_csv.open_csv(path, parse_options=pa_csv.ParseOptions(delimiter="|")):
        pass


def _read_with_csv(path: Path) -> None:
    """Read all rows, and count those of another width, which is the least that a reader has to do."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        width = len(next(reader))
        if not sum(len(row) != width for row in reader):
            _fail()


def _fail() -> None:
    raise AssertionError("the file was not read as it was written")
