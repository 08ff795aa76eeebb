"""Splits a weekly file into accepted rows and rejects.

Memory is bounded for files of any size. One streaming pass separates the rows that pass the row rules from those that
do not. Duplicates can be found only with state, so the rows that passed are then processed by ranges of symbols, at
most about `SLICE_ROWS` rows at a time: each range is small enough to sort, and all later computations are per symbol,
so they stay within a range. Memory grows only with the number of symbols (about 20,000 in the whole market), for the
count of their rows, and with the table of rejects.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict, cast

import polars as pl
from polars import col
from spine.flows import staging

from flows.finra import row_rules, weekly_file
from flows.finra.dataset import Tier

SLICE_ROWS = 250_000
FIRST_REJECTS = 20
"""How many rejects a result or an artifact lists; the ``rejects`` table has all of them."""
LARGEST_TOTAL = 2**63 - 1

_PASSED_RULES = "passed_rules.parquet"
_BROKEN_RULES = "broken_rules.parquet"
_REJECTS = "rejects.parquet"


class TooManyRejects(ValueError):
    """More of the file's rows were rejected than the run allows."""


class Reject(TypedDict):
    """One rejected row: its line in the file (the header is line 1), the name of the rule, and the reason."""

    line_number: int
    rule: str
    reason: str


class Validation(TypedDict):
    """Counts of rows, and the staged files: ``rows`` lists Parquet files, one for each range of symbols.

    ``rejects`` is the file that `write_rejects` writes.
    """

    rows: list[str]
    rejects: str
    rows_read: int
    rows_accepted: int
    rows_rejected: int
    rejects_by_rule: dict[str, int]
    first_rejects: list[Reject]


def validate_file(path: Path, tier: Tier, folder: Path) -> Validation:
    """Check the structure and the rows of the file at ``path``; stage accepted and rejected rows in ``folder``.

    Accepted rows have the columns of `row_rules.accepted` and are sorted by symbol and mpid. Each pair occurs once: if
    several rows have the same pair, the first line is accepted and the others are rejected. Raises
    `weekly_file.BrokenFile`.
    """
    weekly_file.check_structure(path)
    staging.fresh(folder)
    _split_by_row_rules(path, tier, folder)
    _check_totals(folder)
    rows = _split_duplicates(folder)
    rejects = _rejects(folder)
    by_rule = rejects.group_by("rule").len().sort("len", "rule", descending=[True, False]).collect(engine="streaming")
    first = rejects.sort("line_number").head(FIRST_REJECTS).collect(engine="streaming")
    accepted = pl.scan_parquet(rows).select(pl.len()).collect().item() if rows else 0
    rejected = int(by_rule["len"].sum())
    return Validation(
        rows=[str(file) for file in rows],
        rejects=str(folder / _REJECTS),
        rows_read=accepted + rejected,
        rows_accepted=accepted,
        rows_rejected=rejected,
        rejects_by_rule=dict(by_rule.iter_rows()),
        first_rejects=[cast(Reject, row) for row in first.to_dicts()],
    )


def check_reject_fraction(validation: Validation, allowed: float) -> None:
    """Raise `TooManyRejects` if more than ``allowed`` (0 to 1) of the rows were rejected, or all of them."""
    rejected, read = validation["rows_rejected"], validation["rows_read"]
    if rejected <= allowed * read and rejected < read:
        return
    first = validation["first_rejects"][0]
    if rejected == read:
        raise TooManyRejects(f"All {read:,} rows were rejected; first: line {first['line_number']}: {first['reason']}")
    # One decimal place is easiest to read, unless both figures would then look the same.
    digits = next((n for n in (1, 3, 6) if f"{rejected / read:.{n + 2}f}" != f"{allowed:.{n + 2}f}"), 9)
    raise TooManyRejects(
        f"{rejected:,} of {read:,} rows ({100 * rejected / read:.{digits}f} %) were rejected, more than the "
        f"{100 * allowed:.{digits}f} % allowed; first: line {first['line_number']}: {first['reason']}"
    )


def write_rejects(path: Path, folder: Path) -> None:
    """Write the table ``rejects.parquet`` of the file at ``path`` to ``folder``, where `validate_file` staged its rows.

    Columns: line_number (Int64), rule, reason, line (the raw line), sorted by line_number.
    """
    rejects = _rejects(folder).collect(engine="streaming")
    # A semi join keeps only the wanted line numbers in memory, never the lines of the file.
    wanted = rejects.lazy().select("line_number")
    lines = weekly_file.scan(path).select("line_number", "line").join(wanted, on="line_number", how="semi")
    table = rejects.join(lines.collect(engine="streaming"), on="line_number", validate="1:1").sort("line_number")
    table.write_parquet(folder / _REJECTS)


def _split_by_row_rules(path: Path, tier: Tier, folder: Path) -> None:
    checked = row_rules.apply_rules(weekly_file.scan(path), tier)
    # Both sinks are collected together, so that the file is parsed once.
    pl.collect_all(
        [
            row_rules.accepted(checked).sink_parquet(folder / _PASSED_RULES, lazy=True),
            row_rules.rejected(checked, tier).sink_parquet(folder / _BROKEN_RULES, lazy=True),
        ],
        engine="streaming",
    )


def _check_totals(folder: Path) -> None:
    # A sum of 64-bit integers overflows silently, so the totals are computed once with 128 bits.
    passed = pl.scan_parquet(folder / _PASSED_RULES)
    totals = passed.select(col("shares", "trades").cast(pl.Int128).sum()).collect(engine="streaming")
    for column, total in totals.row(0, named=True).items():
        if total > LARGEST_TOTAL:
            largest = passed.sort(column, descending=True).head(1).collect(engine="streaming").row(0, named=True)
            raise weekly_file.BrokenFile(
                f"line {largest['line_number']}: with {column} of {largest[column]:,} the total of the file does not "
                "fit in 64 bits."
            )


def _split_duplicates(folder: Path) -> list[Path]:
    passed = pl.scan_parquet(folder / _PASSED_RULES)
    written = []
    for number, (first, last) in enumerate(_symbol_ranges(passed)):
        wanted = col("symbol").is_between(pl.lit(first), pl.lit(last))
        rows = passed.filter(wanted).collect(engine="streaming").sort("symbol", "mpid", "line_number")
        rows = rows.with_columns(first_line=col("line_number").first().over("symbol", "mpid"))
        again = col("line_number") > col("first_line")
        duplicates = rows.filter(again).select(
            "line_number",
            rule=pl.lit("duplicate"),
            reason=pl.format("symbol '{}' and MPID '{}' are already on line {}", "symbol", "mpid", "first_line"),
        )
        duplicates.write_parquet(folder / f"duplicates-{number:05}.parquet")
        written.append(folder / f"rows-{number:05}.parquet")
        rows.filter(~again).drop("first_line").write_parquet(written[-1])
    (folder / _PASSED_RULES).unlink()
    return written


def _symbol_ranges(passed: pl.LazyFrame) -> Iterator[tuple[str, str]]:
    """Ranges of symbols, in order, with about `SLICE_ROWS` rows each (more only if one symbol has more)."""
    counts = passed.group_by("symbol").len().collect(engine="streaming").sort("symbol")
    numbered = counts.with_columns(number=(col("len").cum_sum() - 1) // SLICE_ROWS)
    ranges = numbered.group_by("number", maintain_order=True)
    return ranges.agg(first=col("symbol").first(), last=col("symbol").last()).select("first", "last").iter_rows()


def _rejects(folder: Path) -> pl.LazyFrame:
    return pl.scan_parquet([folder / _BROKEN_RULES, *sorted(folder.glob("duplicates-*.parquet"))])
