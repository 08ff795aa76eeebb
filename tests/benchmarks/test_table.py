"""The table of the benchmarks: verdicts are computed from figures, and the README has the newest full ones."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks import table
from tests.benchmarks.conditions import Conditions
from tests.benchmarks.figures import RATIO, Aim, Figure, Row, at_least, at_most, middle, percentile
from tests.benchmarks.history import HISTORY, Record, newest, read

CONDITIONS = Conditions("c0ffee1234", "2026-11-28T22:40:00+00:00", 0.42, {"Python": "3.11.7", "SQLite": "3.40.1"})
ROW = Row(
    "trigger until the first step begins",
    (Figure(0.19, "s"), Figure(0.41, "s", "p95"), Figure(0, "", "refused")),
    "process worker",
    (Figure(9.5, "s"),),
    (at_most(0.2), at_most(0.35, "p95"), at_most(0, "refused"), at_most(0.1, RATIO)),
    "SQLite",
)


@pytest.mark.parametrize(
    ("aim", "is_met"),
    [
        (at_most(0.19), True),
        (at_most(0.18), False),
        (at_least(0.19), True),
        (at_least(0.2), False),
        (at_most(0.41, "p95"), True),
        (at_most(0.40, "p95"), False),
        (at_most(0, "refused"), True),
        (at_most(0.02, RATIO), True),
        (at_least(0.03, RATIO), False),
        # A figure that was not measured meets no aim.
        (at_most(5, "p99"), False),
    ],
    ids=repr,
)
def test_an_aim_is_met_or_missed_by_the_figure_that_it_is_about(aim: Aim, is_met: bool) -> None:
    assert replace(ROW, aims=(aim,)).is_met is is_met


def test_a_row_meets_its_aims_only_together_and_names_those_that_it_misses() -> None:
    assert (ROW.is_met, table.verdict(Record("up", ROW, CONDITIONS))) == (False, "no (≤ 0.350 s p95)")
    better = replace(ROW, ours=(Figure(0.19, "s"), Figure(0.34, "s", "p95"), Figure(0, "", "refused")))
    assert (better.is_met, table.verdict(Record("up", better, CONDITIONS))) == (True, "yes")
    assert table.verdict(Record("up", replace(ROW, aims=()), CONDITIONS)) == ""
    assert table.verdict(Record("up", replace(ROW, aims=(at_most(0.1),)), CONDITIONS)) == "no"
    # Without something to compare there is no ratio that could meet an aim.
    assert table.verdict(Record("up", replace(better, theirs=()), CONDITIONS)) == "no (ratio ≤ 0.100)"


def test_a_line_has_figures_aims_verdict_load_and_versions() -> None:
    cells = [cell.strip() for cell in table.line(Record("up", ROW, CONDITIONS)).strip("|").split("|")]
    assert dict(zip(table.HEADER, cells, strict=True)) == {
        "what": "trigger until the first step begins",
        "on": "SQLite",
        "Spine": "0.190 s, 0.410 s p95, 0 refused",
        "compared with": "process worker",
        "that": "9.50 s",
        "ratio": "0.02",
        "aim": "≤ 0.200 s, ≤ 0.350 s p95, ≤ 0 refused, ratio ≤ 0.100",
        "met": "no (≤ 0.350 s p95)",
        "load": "0.420",
        "versions": "Python 3.11.7, SQLite 3.40.1",
        "measured at": "c0ffee1234, 2026-11-28",
    }


def test_the_readme_gets_the_newest_full_row_of_each_kind_and_keeps_its_text(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"Before.\n\n{table.header()}\n| an old line |\n\nAfter | all.\n")
    old = Record("up", ROW, CONDITIONS)
    new = replace(old, conditions=replace(CONDITIONS, commit="2222222222"))
    quick = replace(old, conditions=replace(CONDITIONS, commit="3333333333", quick=True))
    other = replace(old, row=replace(ROW, engine="PostgreSQL"))
    table.write_to_readme([old, other, new, quick], page)
    wanted = "\n".join([table.header(), table.line(new), table.line(other)])
    assert page.read_text() == f"Before.\n\n{wanted}\n\nAfter | all.\n"
    table.write_to_readme([old, other, new, quick], page)
    assert page.read_text() == f"Before.\n\n{wanted}\n\nAfter | all.\n"


def test_the_table_that_is_committed_is_that_of_the_history(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(table.README.read_text())
    records = read(HISTORY)
    table.write_to_readme(records, copy)
    assert copy.read_text() == table.README.read_text()
    assert [record for record in newest(records) if not record.conditions.quick]


def test_medians_and_percentiles() -> None:
    values = [float(number) for number in range(1, 101)]
    assert middle(values, "s") == (Figure(50.5, "s"), Figure(percentile(values, 95), "s", "p95"))
    assert percentile(values, 95) == pytest.approx(95.05)
    assert percentile([1.0, 2.0], 95) <= 2.0
    assert middle([3.0], "s") == (Figure(3.0, "s"),)
