"""The three tables: totals per symbol, shares per venue, and the concentration of the venues.

The Herfindahl index of a symbol is the sum of the squares of its venues' shares of volume: 1 when one venue has all the
volume, 1/n when n venues have equal parts. https://www.justice.gov/atr/herfindahl-hirschman-index (there times 10,000).

If all rows of a symbol have 0 shares, its shares of volume are undefined. By our convention its venues then have equal
parts, so that shares of volume sum to 1 for every published symbol and no value is missing or NaN.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, cast

import polars as pl
from polars import col

TABLES = ("symbol_totals", "venue_shares", "venue_concentration")
LARGEST_VENUES = 50
"""How many venues the league table lists; a tier has a dozen to a few hundred."""


class Venue(TypedDict):
    """A row of the league table; ``share_of_volume`` (0 to 1) is the venue's part of all shares in the file."""

    mpid: str
    venue: str | None
    shares: int
    share_of_volume: float
    trades: int
    symbols: int


class Figures(TypedDict):
    """Headline figures of a file, and its largest venues; ``last_update`` is the latest date in the file (ISO)."""

    rows: int
    symbols: int
    venues: int
    shares: int
    trades: int
    last_update: str
    single_venue_symbols: int
    largest_venues: list[Venue]


def symbol_totals(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per symbol: symbol, issue_name, shares, trades, venues, last_update; sorted by symbol.

    ``rows`` has each (symbol, mpid) once and is sorted by them, here and below. If the rows of a symbol have different
    issue names, the first one is used.
    """
    return rows.group_by("symbol", maintain_order=True).agg(
        col("issue_name").drop_nulls().first(),
        col("shares", "trades").sum(),
        venues=pl.len().cast(pl.Int64),
        last_update=col("last_update").max(),
    )


def venue_shares(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per symbol and venue: symbol, mpid, venue_name, shares, trades, share_of_volume (0 to 1)."""
    total = col("shares").sum().over("symbol")
    equal = 1 / pl.len().over("symbol")
    share = pl.when(total > 0).then(col("shares") / total).otherwise(equal)
    return rows.select("symbol", "mpid", "venue_name", "shares", "trades", share_of_volume=share)


def venue_concentration(shares: pl.DataFrame) -> pl.DataFrame:
    """One row per symbol, from `venue_shares`: symbol, herfindahl (1/venues to 1), venues, top_mpid, top_share.

    The top venue is the one with the most shares; if several have the same number, the first by MPID.
    """
    share = col("share_of_volume")
    return shares.group_by("symbol", maintain_order=True).agg(
        herfindahl=(share**2).sum(),
        venues=pl.len().cast(pl.Int64),
        top_mpid=col("mpid").get(share.arg_max()),
        top_share=share.max(),
    )


def write_tables(rows: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Compute the three tables, write each as ``<folder>/<table>.parquet``, and return the paths by table name.

    ``rows`` are files in order of symbol; all rows of a symbol are in one file (see `validation`). They are processed
    one at a time, so memory depends on the largest file and not on their number.
    """
    parts: dict[str, list[Path]] = {table: [] for table in TABLES}
    for number, file in enumerate(rows):
        frame = pl.read_parquet(file)
        shares = venue_shares(frame)
        frames = (symbol_totals(frame), shares, venue_concentration(shares))
        for table, content in zip(TABLES, frames, strict=True):
            parts[table].append(folder / f"{table}-{number:05}.parquet")
            content.write_parquet(parts[table][-1])
    files = {table: folder / f"{table}.parquet" for table in TABLES}
    for table, file in files.items():
        pl.scan_parquet(parts[table]).sink_parquet(file)
        for part in parts[table]:
            part.unlink()
    return files


def figures(tables: dict[str, Path]) -> Figures:
    """The headline figures and the league table of venues, from the files that `write_tables` wrote."""
    totals = pl.scan_parquet(tables["symbol_totals"])
    head = totals.select(
        symbols=pl.len(),
        rows=col("venues").sum(),
        shares=col("shares").sum(),
        trades=col("trades").sum(),
        last_update=col("last_update").max().dt.to_string("%Y-%m-%d"),
        single_venue_symbols=(col("venues") == 1).sum(),
    ).collect(engine="streaming")
    league = venue_league(pl.scan_parquet(tables["venue_shares"]))
    largest = [cast(Venue, venue) for venue in league.head(LARGEST_VENUES).to_dicts()]
    return cast(Figures, head.row(0, named=True) | {"venues": league.height, "largest_venues": largest})


def venue_league(shares: pl.LazyFrame) -> pl.DataFrame:
    """One row per venue, largest first: mpid, venue, shares, share_of_volume, trades, symbols."""
    venues = shares.group_by("mpid").agg(
        venue=col("venue_name").min(),
        shares=col("shares").sum(),
        trades=col("trades").sum(),
        symbols=pl.len().cast(pl.Int64),
    )
    total = col("shares").sum()
    share = pl.when(total > 0).then(col("shares") / total).otherwise(0.0)
    ordered = venues.sort(["shares", "mpid"], descending=[True, False]).collect(engine="streaming")
    return ordered.select("mpid", "venue", "shares", share_of_volume=share, trades="trades", symbols="symbols")
