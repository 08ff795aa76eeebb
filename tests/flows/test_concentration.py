"""The three tables: weekly files to the share, and small cases that can be checked by hand."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path

import polars as pl
import pytest

import flows.finra
from flows.finra import concentration, validation
from tests.support.weekly_files import PAIRS, WEEKLY_FILES, WeeklyFile

SAMPLE = Path(flows.finra.__file__).parent / "sample" / "finra_otc_weekly_sample.csv"


def tables_of(path: Path, folder: Path) -> dict[str, Path]:
    checked = validation.validate_file(path, "OTC", folder / "validate")
    assert checked["rows_rejected"] == 0
    (folder / "compute").mkdir()
    return concentration.write_tables([Path(rows) for rows in checked["rows"]], folder / "compute")


def rows(*venues: tuple[str, str, int]) -> pl.DataFrame:
    """Accepted rows of (symbol, mpid, shares), as `validation` stages them."""
    frame = pl.DataFrame(list(venues), schema=["symbol", "mpid", "shares"], orient="row").sort("symbol", "mpid")
    return frame.with_columns(
        issue_name=pl.format("{} Inc", "symbol"),
        venue_name=pl.format("{} ATS", "mpid"),
        trades=pl.lit(2, pl.Int64),
        last_update=pl.lit(date(2026, 1, 5)),
    )


@pytest.mark.parametrize("weekly", WEEKLY_FILES, ids=lambda weekly: weekly.name)
def test_the_figures_of_a_weekly_file_are_exact(weekly: WeeklyFile, tmp_path: Path) -> None:
    figures = concentration.figures(tables_of(weekly.write(tmp_path), tmp_path))
    assert {name: figures.get(name) for name in asdict(weekly.figures)} == asdict(weekly.figures)
    assert sum(venue["shares"] for venue in figures["largest_venues"]) == weekly.figures.shares
    assert sum(venue["trades"] for venue in figures["largest_venues"]) == weekly.figures.trades


@pytest.mark.parametrize("weekly", [pair[0] for pair in PAIRS], ids=lambda weekly: weekly.name)
@pytest.mark.parametrize("slice_rows", [250_000, 700])
def test_the_tables_of_a_weekly_file_agree_with_a_second_computation(
    weekly: WeeklyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slice_rows: int
) -> None:
    monkeypatch.setattr(validation, "SLICE_ROWS", slice_rows)
    path = weekly.write(tmp_path)
    tables = {name: pl.read_parquet(file) for name, file in tables_of(path, tmp_path).items()}
    shares, concentrations = tables["venue_shares"], tables["venue_concentration"]

    volumes: dict[str, dict[str, int]] = {}
    for line in path.read_text().splitlines()[1:]:
        _, symbol, _, _, mpid, quantity, _, _ = line.split("|")
        volumes.setdefault(symbol, {})[mpid] = int(quantity)
    totals = {symbol: sum(venues.values()) for symbol, venues in volumes.items()}

    assert dict(tables["symbol_totals"].select("symbol", "shares").iter_rows()) == totals
    assert shares.select("symbol", "mpid").rows() == sorted((s, m) for s, venues in volumes.items() for m in venues)
    for symbol, mpid, part in shares.select("symbol", "mpid", "share_of_volume").iter_rows():
        assert part == pytest.approx(volumes[symbol][mpid] / totals[symbol], abs=1e-15)
    assert concentrations["symbol"].to_list() == sorted(volumes)
    for symbol, herfindahl in concentrations.select("symbol", "herfindahl").iter_rows():
        expected = sum((volume / totals[symbol]) ** 2 for volume in volumes[symbol].values())
        assert herfindahl == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("weekly", WEEKLY_FILES, ids=lambda weekly: weekly.name)
def test_venue_shares_of_every_symbol_sum_to_one(weekly: WeeklyFile, tmp_path: Path) -> None:
    shares = pl.read_parquet(tables_of(weekly.write(tmp_path), tmp_path)["venue_shares"])
    sums = shares.group_by("symbol").agg(pl.col("share_of_volume").sum())
    assert sums.height == weekly.figures.symbols
    assert (sums["share_of_volume"] - 1).abs().max() < 1e-12  # type: ignore[operator]


def test_shares_and_herfindahl_are_what_one_computes_by_hand() -> None:
    shares = concentration.venue_shares(rows(("AAA", "X", 600), ("AAA", "Y", 300), ("AAA", "Z", 100), ("BBB", "Y", 5)))
    assert shares["share_of_volume"].to_list() == [0.6, 0.3, 0.1, 1.0]
    found = concentration.venue_concentration(shares).rows()
    assert found == [("AAA", pytest.approx(0.46), 3, "X", 0.6), ("BBB", 1.0, 1, "Y", 1.0)]


def test_totals_count_shares_trades_and_venues() -> None:
    totals = concentration.symbol_totals(rows(("AAA", "X", 600), ("AAA", "Y", 300), ("BBB", "Y", 5)))
    assert totals.columns == ["symbol", "issue_name", "shares", "trades", "venues", "last_update"]
    assert totals.rows() == [
        ("AAA", "AAA Inc", 900, 4, 2, date(2026, 1, 5)),
        ("BBB", "BBB Inc", 5, 2, 1, date(2026, 1, 5)),
    ]


def test_venues_of_a_symbol_without_volume_have_equal_parts() -> None:
    shares = concentration.venue_shares(rows(("AAA", "X", 0), ("AAA", "Y", 0), ("BBB", "X", 0), ("BBB", "Y", 9)))
    assert shares["share_of_volume"].to_list() == [0.5, 0.5, 0.0, 1.0]
    assert concentration.venue_concentration(shares).rows() == [("AAA", 0.5, 2, "X", 0.5), ("BBB", 1.0, 2, "Y", 1.0)]


def test_of_equally_large_venues_the_first_by_mpid_is_on_top() -> None:
    shares = concentration.venue_shares(rows(("AAA", "Z", 5), ("AAA", "B", 5), ("AAA", "C", 2)))
    assert concentration.venue_concentration(shares)["top_mpid"].to_list() == ["B"]


def test_the_league_of_a_week_without_any_volume_is_free_of_nan() -> None:
    league = concentration.venue_league(concentration.venue_shares(rows(("AAA", "X", 0), ("BBB", "X", 0))).lazy())
    assert league.to_dicts() == [
        {"mpid": "X", "venue": "X ATS", "shares": 0, "share_of_volume": 0.0, "trades": 4, "symbols": 2}
    ]


def test_the_same_file_gives_the_same_bytes(write_file: Callable[..., Path], tmp_path: Path) -> None:
    path = write_file(
        [f"OTC|S{i % 40}|Name {i % 40}|V{i}|V{i}|{i * 7919 % 1009}|{i}|2026-01-05" for i in reversed(range(400))]
    )
    contents = []
    for attempt in ("first", "second"):
        (tmp_path / attempt).mkdir()
        contents.append([file.read_bytes() for file in tables_of(path, tmp_path / attempt).values()])
    assert contents[0] == contents[1]


def test_the_sample_is_sound_and_small(tmp_path: Path) -> None:
    figures = concentration.figures(tables_of(SAMPLE, tmp_path))
    assert (figures["rows"], figures["symbols"], figures["venues"], figures["single_venue_symbols"]) == (16, 8, 4, 3)
    assert [venue["mpid"] for venue in figures["largest_venues"]] == ["QBRD", "NLNK", "VDSK", "SKYX"]
