"""The rows about the bundled workflow: all its steps, beside only reading the file with the library that it uses."""

from tests.benchmarks import finra_rows
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Figure, Row, at_most

PEAK = "peak"


def measure(bench: Bench) -> None:
    """Add all rows."""
    for rows in bench.scale.finra_rows:
        found = finra_rows.measure(rows)
        ours = (Figure(found["seconds"], "s"), Figure(found["peak_rss_mb"], "MB", PEAK))
        reading = (Figure(found["read_csv_seconds"], "s"), Figure(found["read_csv_peak_rss_mb"], "MB", PEAK))
        what = f"finra.weekly_refresh, {rows:,} rows"
        bench.add(Row(what, ours, "polars.read_csv", reading, (at_most(600, PEAK),)))
