"""The rules for single rows of the weekly file, and the normalization of their values, as Polars expressions."""

from typing import NamedTuple

import polars as pl
from polars import col

from flows.finra.dataset import TIER_SPELLINGS, Tier
from flows.finra.weekly_file import COLUMNS

SHOWN = 40
"""How many characters of a value a reason shows at most."""


class Rule(NamedTuple):
    """A row is rejected under ``name`` where ``broken`` is true; ``reason`` is a sentence without its full stop."""

    name: str
    broken: pl.Expr
    reason: pl.Expr


def rules(tier: Tier) -> list[Rule]:
    """The rules for rows of ``tier``, on trimmed text. The first rule that a row breaks gives its reason."""
    spelled = col("tier").str.to_uppercase().str.replace_all(r"\s+", " ")
    return [
        Rule("tier_mismatch", ~spelled.is_in(TIER_SPELLINGS[tier]), _says("tier", f"is not {tier}")),
        Rule("missing_symbol", col("symbol") == "", pl.lit("issueSymbolIdentifier is missing")),
        Rule("missing_mpid", col("mpid") == "", pl.lit("MPID is missing")),
        *_quantity_rules("shares"),
        *_quantity_rules("trades"),
        Rule("bad_date", _iso_date("last_update").is_null(), _says("last_update", "is not a date like 2025-12-15")),
    ]


def apply_rules(rows: pl.LazyFrame, tier: Tier) -> pl.LazyFrame:
    """Trim all fields of ``rows`` and add ``rule``: the name of the first rule that a row breaks, null if none."""
    trimmed = rows.with_columns(col(*COLUMNS.values()).str.strip_chars())
    broken = [pl.when(rule.broken).then(pl.lit(rule.name)) for rule in rules(tier)]
    return trimmed.with_columns(rule=pl.coalesce(broken))


def accepted(checked: pl.LazyFrame) -> pl.LazyFrame:
    """The rows that break no rule, normalized.

    Columns: line_number, symbol and mpid (upper case), issue_name and venue_name (single spaces; null when blank),
    shares and trades (Int64, not negative), last_update (Date).
    """
    return checked.filter(col("rule").is_null()).select(
        "line_number",
        col("symbol", "mpid").str.to_uppercase(),
        _name("issue_name"),
        _name("venue_name"),
        col("shares", "trades").cast(pl.Int64),
        _iso_date("last_update"),
    )


def rejected(checked: pl.LazyFrame, tier: Tier) -> pl.LazyFrame:
    """The rows that break a rule: line_number, rule, reason."""
    reasons = [pl.when(col("rule") == rule.name).then(rule.reason) for rule in rules(tier)]
    return checked.filter(col("rule").is_not_null()).select("line_number", "rule", reason=pl.coalesce(reasons))


def _quantity_rules(column: str) -> list[Rule]:
    number = col(column).cast(pl.Int64, strict=False)
    digits = col(column).str.contains(r"^-?[0-9]+$")
    return [
        Rule(f"{column}_not_an_integer", ~digits, _says(column, "is not an integer")),
        Rule(f"{column}_too_large", number.is_null(), _says(column, "does not fit in 64 bits")),
        Rule(f"{column}_negative", number < 0, _says(column, "is negative")),
    ]


def _name(column: str) -> pl.Expr:
    # `replace("", None)` would do the same, but keeps the whole column in memory (Polars 2.1).
    return pl.when(col(column) != "").then(col(column).str.replace_all(r"\s+", " ")).alias(column)


def _iso_date(column: str) -> pl.Expr:
    # The parser alone would also accept 2025-1-5.
    iso = col(column).str.contains(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")
    return pl.when(iso).then(col(column).str.to_date("%Y-%m-%d", strict=False)).alias(column)


def _says(column: str, problem: str) -> pl.Expr:
    name = next(finra for finra, ours in COLUMNS.items() if ours == column)
    cut = pl.when(col(column).str.len_chars() > SHOWN).then(pl.lit("…")).otherwise(pl.lit(""))
    return pl.format(f"{name} '{{}}{{}}' {problem}", col(column).str.slice(0, SHOWN), cut)
