"""The table of faults in `deployments/README.md`."""

import os
import platform
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.faults.load import KINDS
from tests.faults.measuring import Row
from tests.support.processes import PROJECT

README = PROJECT / "deployments" / "README.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
COLUMNS = (
    "Fault",
    "Sent",
    "Accepted",
    "Refused",
    "Longest without success: runs, alerts, reads",
    "Recovered after",
    "Runs lost, twice, crashed",
    "Alerts lost, twice, repeated",
)


def line(row: Row) -> str:
    """A row as a line of the table."""
    seen, outcome = row.seen, row.outcome
    results: Counter[str] = sum((seen.results(kind) for kind in KINDS), Counter())
    refused = {result: count for result, count in sorted(results.items()) if not result.startswith("2")}
    cells = (
        seen.fault.title,
        str(results.total()),
        str(results.total() - sum(refused.values())),
        ", ".join(f"{result}: {count}" for result, count in refused.items()) or "none",
        ", ".join(f"{seen.longest_gap(kind):.1f} s" for kind in KINDS),
        "not in time" if seen.recovered is None else f"{seen.recovered - seen.ended:.1f} s",
        f"{outcome.runs_lost}, {outcome.runs_twice}, {outcome.runs_crashed}",
        f"{outcome.alerts_lost}, {outcome.alerts_twice}, {outcome.alerts_repeated}",
    )
    return _line(cells)


def conditions(minutes: float) -> str:
    """When and where the figures were measured."""
    parts = (
        f"{datetime.now(UTC):%Y-%m-%d}",
        f"{minutes:g} minutes of load for each fault, of which it lasted three fifths",
        f"{os.cpu_count()} cores",
        f"Python {platform.python_version()}",
        *(f"{name} {version(name.lower())}" for name in ("Prefect", "SQLAlchemy")),
    )
    return f"Measured: {'; '.join(parts)}."


def write(lines: list[str], minutes: float, path: Path = README) -> None:
    """Put the table between its marks."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"{path} has no place for the table"
    rule = "|" + "---|" * len(COLUMNS)
    body = "\n".join([conditions(minutes), "", _line(COLUMNS), rule, *lines])
    path.write_text(f"{before}{BEGIN}\n{body}\n{END}{after}")


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
