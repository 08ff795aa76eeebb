"""The table of results: the newest record of each row, printed and kept in this folder's README."""

from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.figures import short
from tests.benchmarks.history import Record, newest

README = Path(__file__).parent / "README.md"
HEADER = ("what", "on", "Spine", "compared with", "that", "ratio", "aim", "met", "load", "versions", "measured at")
_RULE = "|" + "---|" * len(HEADER)


def header() -> str:
    """The names of the columns."""
    return f"{_line(HEADER)}\n{_RULE}"


def line(record: Record) -> str:
    """A record as one line of the table."""
    row, conditions = record.row, record.conditions
    return _line(
        (
            row.what,
            row.engine,
            ", ".join(figure.text for figure in row.ours),
            row.compared,
            ", ".join(figure.text for figure in row.theirs),
            "" if row.ratio is None else f"{row.ratio:.2f}",
            ", ".join(row.aim_text(aim) for aim in row.aims),
            verdict(record),
            "" if conditions.load is None else short(conditions.load),
            conditions.text,
            f"{conditions.commit}, {conditions.date[:10]}",
        )
    )


def verdict(record: Record) -> str:
    """Whether the aims are met, and which are not where some are; empty where there is no aim."""
    row = record.row
    if not row.aims:
        return ""
    if row.is_met:
        return "yes"
    is_partly_met = len(row.missed) < len(row.aims)
    return f"no ({', '.join(row.aim_text(aim) for aim in row.missed)})" if is_partly_met else "no"


def write_to_readme(records: Iterable[Record], path: Path = README) -> None:
    """Put the newest records of full passes into the table of the README."""
    before, found, rest = path.read_text(encoding="utf-8").partition(f"{header()}\n")
    assert found, f"{path} has no table with the columns {HEADER}"
    after = rest.split("\n")
    while after and after[0].startswith("|"):
        after.pop(0)
    lines = [line(record) for record in newest(records) if not record.conditions.quick]
    path.write_text(before + "\n".join([header(), *lines, *after]), encoding="utf-8")


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
