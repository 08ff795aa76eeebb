"""How long ``finra.weekly_refresh`` takes over a large file, and how much memory, beside a plain ``pl.read_csv`` of it.

Run ``python tests/benchmarks/finra_rows.py [rows ...]`` from the project's root. No Prefect server takes part: what is
measured are the functions that the flow's steps call, in one fresh process.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import polars as pl

ROOT = Path(__file__).resolve().parents[2]
VENUES = 100
WEEK = date(2025, 12, 15)


def generate(path: Path, rows: int) -> None:
    """Write a valid weekly OTC file of ``rows`` rows: symbols of up to 100 venues, each (symbol, MPID) once."""
    number = pl.int_range(0, rows, dtype=pl.Int64).alias("number")
    symbol, venue = pl.col("number") // VENUES, pl.col("number") % VENUES
    columns = {
        "tierDescription": pl.lit("OTC"),
        "issueSymbolIdentifier": pl.format("S{}", symbol.cast(pl.String).str.zfill(6)),
        "issueName": pl.format("Synthetic Issue Number {} Inc Common Stock", symbol),
        "marketParticipantName": pl.format("VENUE NUMBER {} ATS", venue),
        "MPID": pl.format("V{}", venue.cast(pl.String).str.zfill(3)),
        "totalWeeklyShareQuantity": pl.col("number") * 7919 % 1_000_003,
        "totalWeeklyTradeCount": pl.col("number") * 31 % 997,
        "lastUpdateDate": pl.lit(WEEK.isoformat()),
    }
    numbers = pl.LazyFrame().select(number)
    numbers.select(**columns).sink_csv(path, separator="|", quote_style="never")


def measure(rows: int = 1_000_000) -> dict[str, float]:
    """Seconds and peak memory (MB) of the pipeline and of ``pl.read_csv`` over ``rows`` rows, each in a new process.

    Keys: rows, file_mb, seconds, peak_rss_mb, read_csv_seconds, read_csv_peak_rss_mb. Importing is not in the seconds,
    its memory is in the peak.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weekly.csv"
        generate(file, rows)
        ours, theirs = _in_child("pipeline", file), _in_child("read_csv", file)
        size = file.stat().st_size / 1e6
    return {
        "rows": rows,
        "file_mb": round(size, 1),
        **ours,
        **{f"read_csv_{name}": value for name, value in theirs.items()},
    }


def pipeline(file: Path) -> int:
    """Do what the flow's four steps do over ``file``, below its folder; answer the number of rows published."""
    from flows import publication
    from flows.finra import concentration, dataset, validation, weekly_file

    staged, tables = file.parent / "validate", file.parent / "compute"
    source = weekly_file.locate(str(file))
    weekly_file.check_unchanged(source)
    checked = validation.validate_file(file, "OTC", staged)
    validation.check_reject_fraction(checked, 0.01)
    validation.write_rejects(file, staged)
    tables.mkdir()
    files = concentration.write_tables([Path(rows) for rows in checked["rows"]], tables)
    figures = concentration.figures(files)
    publication.publish(
        str(file.parent / "warehouse"),
        dataset.partition("OTC", WEEK),
        dataset.capture_id("OTC", WEEK, source["sha256"]),
        files | {"rejects": Path(checked["rejects"])},
    )
    return figures["rows"]


def read_csv(file: Path) -> int:
    """Read ``file`` as Polars does by default, all of it into memory; answer the number of rows."""
    return pl.read_csv(file, separator="|", quote_char=None).height


def _in_child(what: str, file: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", what, str(file)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _child(what: str, file: Path) -> None:
    work = {"pipeline": pipeline, "read_csv": read_csv}[what]
    start = time.perf_counter()
    rows = work(file)
    seconds = time.perf_counter() - start
    assert rows > 0
    print(json.dumps({"seconds": round(seconds, 2), "peak_rss_mb": round(_peak_rss_mb(), 1)}))


def _peak_rss_mb() -> float:
    # On Linux `ru_maxrss` starts from the peak of the process that started this one; VmHWM is this process's own.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], Path(sys.argv[3]))
    else:
        for wanted in sys.argv[1:] or ["1000000", "4000000"]:
            print(json.dumps(measure(int(wanted))))
