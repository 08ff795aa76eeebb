"""The rules for rows: what is rejected with which line and reason, and how many rejects are too many."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from flows.finra import validation
from flows.finra.dataset import Tier
from flows.finra.validation import TooManyRejects, Validation
from flows.finra.weekly_file import BrokenFile


def row(
    tier: str = "OTC",
    symbol: str = "AAA",
    issue: str = "Alpha Inc",
    venue: str = "NLNK NORTHERN LINK",
    mpid: str = "NLNK",
    shares: str = "100",
    trades: str = "2",
    updated: str = "2026-01-05",
) -> str:
    return "|".join([tier, symbol, issue, venue, mpid, shares, trades, updated])


def accepted(checked: Validation) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(file) for file in checked["rows"]])


def counts(rejected: int, read: int) -> Validation:
    first = validation.Reject(
        line_number=17, rule="shares_negative", reason="totalWeeklyShareQuantity '-5' is negative"
    )
    return Validation(
        rows=[],
        rejects="",
        rows_read=read,
        rows_accepted=read - rejected,
        rows_rejected=rejected,
        rejects_by_rule={"shares_negative": rejected},
        first_rejects=[first],
    )


@pytest.mark.parametrize(
    ("bad", "rule", "reason"),
    [
        (row(tier="NMS Tier 1"), "tier_mismatch", "tierDescription 'NMS Tier 1' is not OTC"),
        (row(symbol=""), "missing_symbol", "issueSymbolIdentifier is missing"),
        (row(symbol="  "), "missing_symbol", "issueSymbolIdentifier is missing"),
        (row(mpid=""), "missing_mpid", "MPID is missing"),
        (row(shares="-5"), "shares_negative", "totalWeeklyShareQuantity '-5' is negative"),
        (row(shares="1.5"), "shares_not_an_integer", "totalWeeklyShareQuantity '1.5' is not an integer"),
        (row(shares=""), "shares_not_an_integer", "totalWeeklyShareQuantity '' is not an integer"),
        (row(shares="1e5"), "shares_not_an_integer", "totalWeeklyShareQuantity '1e5' is not an integer"),
        (row(shares="1,000"), "shares_not_an_integer", "totalWeeklyShareQuantity '1,000' is not an integer"),
        (
            row(shares="9223372036854775808"),
            "shares_too_large",
            "totalWeeklyShareQuantity '9223372036854775808' does not fit in 64 bits",
        ),
        (row(trades="-1"), "trades_negative", "totalWeeklyTradeCount '-1' is negative"),
        (row(trades="two"), "trades_not_an_integer", "totalWeeklyTradeCount 'two' is not an integer"),
        (row(updated="01/05/2026"), "bad_date", "lastUpdateDate '01/05/2026' is not a date like 2025-12-15"),
        (row(updated="2026-02-30"), "bad_date", "lastUpdateDate '2026-02-30' is not a date like 2025-12-15"),
        (row(updated="2026-1-5"), "bad_date", "lastUpdateDate '2026-1-5' is not a date like 2025-12-15"),
        (row(updated=""), "bad_date", "lastUpdateDate '' is not a date like 2025-12-15"),
        (row(symbol="bbb"), "duplicate", "symbol 'BBB' and MPID 'NLNK' are already on line 2"),
        (
            row(shares="x" * 50),
            "shares_not_an_integer",
            f"totalWeeklyShareQuantity '{'x' * 40}…' is not an integer",
        ),
    ],
)
def test_a_bad_row_is_rejected_with_its_line_and_reason(
    write_file: Callable[..., Path], staged: Path, bad: str, rule: str, reason: str
) -> None:
    path = write_file([row(symbol="BBB"), row(symbol="CCC"), bad, row(symbol="DDD")])
    checked = validation.validate_file(path, "OTC", staged)
    validation.write_rejects(path, staged)
    assert accepted(checked)["symbol"].to_list() == ["BBB", "CCC", "DDD"]
    assert checked["first_rejects"] == [{"line_number": 4, "rule": rule, "reason": reason}]
    assert checked["rejects_by_rule"] == {rule: 1}
    rejects = pl.read_parquet(checked["rejects"])
    assert rejects.to_dicts() == [{"line_number": 4, "rule": rule, "reason": reason, "line": bad}]
    assert rejects.schema["line_number"] == pl.Int64


def test_quantities_keep_64_bits(write_file: Callable[..., Path], staged: Path) -> None:
    checked = validation.validate_file(write_file([row(shares="9223372036854775807", trades="0")]), "OTC", staged)
    assert accepted(checked).select("shares", "trades").row(0) == (9223372036854775807, 0)


def test_quantities_whose_total_overflows_break_the_file_at_the_largest(
    write_file: Callable[..., Path], staged: Path
) -> None:
    path = write_file([row(symbol="A", shares="1"), row(symbol="B", shares="9223372036854775807")])
    with pytest.raises(BrokenFile, match=r"line 3: with shares of 9,223,372,036,854,775,807 the total"):
        validation.validate_file(path, "OTC", staged)


def test_values_are_normalized(write_file: Callable[..., Path], staged: Path) -> None:
    path = write_file(
        [row(tier=" otc", symbol=" aaa ", issue="  Alpha \t  Inc ", venue="", mpid="nlnk ", shares=" 7", trades="3 ")]
    )
    only = accepted(validation.validate_file(path, "OTC", staged)).row(0, named=True)
    assert only.pop("last_update").isoformat() == "2026-01-05"
    assert only == {
        "line_number": 2,
        "symbol": "AAA",
        "mpid": "NLNK",
        "issue_name": "Alpha Inc",
        "venue_name": None,
        "shares": 7,
        "trades": 3,
    }


@pytest.mark.parametrize(
    ("tier", "spelling"), [("OTC", "OTC"), ("T1", "NMS Tier 1"), ("T1", "T1"), ("T2", "NMS Tier 2"), ("T2", "t2")]
)
def test_each_tier_accepts_its_spellings_and_no_other(
    write_file: Callable[..., Path], staged: Path, tier: Tier, spelling: str
) -> None:
    path = write_file([row(tier=spelling)])
    assert validation.validate_file(path, tier, staged)["rows_accepted"] == 1
    for other in {"OTC", "T1", "T2"} - {tier}:
        assert validation.validate_file(path, other, staged)["rejects_by_rule"] == {"tier_mismatch": 1}  # type: ignore[arg-type]


def test_every_repetition_of_a_pair_is_rejected_and_the_first_sound_row_counts(
    write_file: Callable[..., Path], staged: Path
) -> None:
    path = write_file(
        [row(shares="-1"), row(shares="10"), row(mpid="QBRD", shares="20"), row(shares="30"), row(shares="40")]
    )
    checked = validation.validate_file(path, "OTC", staged)
    assert accepted(checked).select("mpid", "shares").rows() == [("NLNK", 10), ("QBRD", 20)]
    assert [(reject["line_number"], reject["rule"]) for reject in checked["first_rejects"]] == [
        (2, "shares_negative"),
        (5, "duplicate"),
        (6, "duplicate"),
    ]
    assert (checked["rows_read"], checked["rows_accepted"], checked["rows_rejected"]) == (5, 2, 3)
    assert checked["rejects_by_rule"] == {"duplicate": 2, "shares_negative": 1}


def test_ranges_of_symbols_hold_whole_symbols_in_order(
    write_file: Callable[..., Path], staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "SLICE_ROWS", 3)
    pairs = [(symbol, mpid) for mpid in ("V2", "V1") for symbol in ("D", "A", "C", "B", "E")]
    path = write_file([row(symbol=symbol, mpid=mpid) for symbol, mpid in [*pairs, ("A", "V2"), ("E", "V1")]])
    checked = validation.validate_file(path, "OTC", staged)
    ranges = [pl.read_parquet(file)["symbol"].unique().to_list() for file in checked["rows"]]
    assert len(ranges) > 2
    assert sum(len(symbols) for symbols in ranges) == 5
    assert accepted(checked).select("symbol", "mpid").rows() == sorted(pairs)
    assert [reject["line_number"] for reject in checked["first_rejects"]] == [12, 13]


def test_rejects_are_in_order_of_line_whichever_rule_they_broke(write_file: Callable[..., Path], staged: Path) -> None:
    path = write_file([row(), row(symbol=""), row(), row(shares="x"), row(), row(updated="x")])
    checked = validation.validate_file(path, "OTC", staged)
    validation.write_rejects(path, staged)
    rejects = pl.read_parquet(checked["rejects"])
    assert rejects["line_number"].to_list() == [3, 4, 5, 6, 7]
    assert rejects["line"].to_list() == path.read_text().splitlines()[2:]


def test_a_second_validation_forgets_what_the_first_one_staged(write_file: Callable[..., Path], staged: Path) -> None:
    validation.validate_file(write_file([row(), row(), row(symbol="")]), "OTC", staged)
    checked = validation.validate_file(write_file([row()]), "OTC", staged)
    assert (checked["rows_accepted"], checked["rows_rejected"], checked["first_rejects"]) == (1, 0, [])


def test_as_many_rejects_as_allowed_pass() -> None:
    validation.check_reject_fraction(counts(rejected=53, read=5300), 0.01)
    validation.check_reject_fraction(counts(rejected=0, read=5300), 0)


def test_one_reject_more_than_allowed_fails_and_says_which_came_first() -> None:
    with pytest.raises(TooManyRejects) as raised:
        validation.check_reject_fraction(counts(rejected=53, read=5328), 0.005)
    assert str(raised.value) == (
        "53 of 5,328 rows (1.0 %) were rejected, more than the 0.5 % allowed; "
        "first: line 17: totalWeeklyShareQuantity '-5' is negative"
    )


def test_percentages_that_would_look_alike_get_more_digits() -> None:
    with pytest.raises(TooManyRejects, match=r"\(1\.009 %\) were rejected, more than the 1\.000 % allowed"):
        validation.check_reject_fraction(counts(rejected=54, read=5350), 0.01)


def test_a_file_of_which_no_row_is_left_fails_even_when_all_rejects_are_allowed() -> None:
    with pytest.raises(TooManyRejects, match=r"All 5 rows were rejected; first: line 17: "):
        validation.check_reject_fraction(counts(rejected=5, read=5), 1.0)
