"""The history of the benchmarks, and what changed since an earlier pass."""

from dataclasses import replace
from pathlib import Path

from tests.benchmarks.bench import Bench
from tests.benchmarks.conditions import Conditions, versions
from tests.benchmarks.figures import Figure, Row, at_most
from tests.benchmarks.history import LAST, Record, append, comparison, earlier, read
from tests.benchmarks.scale import FULL, QUICK

ROW = Row(
    "trigger", (Figure(80.0, "ms"), Figure(95.0, "ms", "p95")), "raw", (Figure(59.0, "ms"),), (at_most(70),), "SQLite"
)
FIRST = Record("reads", ROW, Conditions("1111111111", "2026-11-28T10:00:00+00:00", None, {"Python": "3.11"}))


def measured(commit: str, value: float, *, quick: bool = False) -> Record:
    conditions = Conditions(commit, "2026-11-29T10:00:00+00:00", 0.3, {"Python": "3.11"}, quick)
    return replace(FIRST, row=replace(ROW, ours=(Figure(value, "ms"),)), conditions=conditions)


def test_records_are_appended_and_read_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    records = [FIRST, measured("2222222222", 60.0, quick=True)]
    for record in records:
        append(record, path)
    assert read(path) == records
    assert len(path.read_text().splitlines()) == 2
    assert read(tmp_path / "nothing.jsonl") == []


def test_a_pass_is_compared_with_the_last_one_or_with_that_of_a_commit() -> None:
    second, quick, third = (
        measured("2222222222", 60.0),
        measured("3333333333", 1.0, quick=True),
        measured("4444444444", 30.0),
    )
    records = [FIRST, second, quick, third]
    assert earlier(records, third, LAST) == second
    assert earlier(records, third, "1111") == FIRST
    assert earlier(records, third, "9999") is None
    # Another scale, another engine and another row are not comparable.
    assert earlier(records, quick, LAST) is None
    other = replace(third, row=replace(third.row, engine="PostgreSQL"))
    assert earlier([*records, other], other, LAST) is None
    assert comparison(records, [quick, third], "1111") == ["trigger, SQLite: 80 ms (1111111111) -> 30 ms (-62 %)"]
    assert comparison(records, [third], LAST) == ["trigger, SQLite: 60 ms (2222222222, load 0.300) -> 30 ms (-50 %)"]


def test_a_pass_records_its_conditions_with_each_row(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    bench = Bench(QUICK, tmp_path, path)
    bench.run("reads", lambda one: one.add(ROW))
    (record,) = read(path)
    assert bench.records == [record]
    assert (record.part, record.row, record.conditions.quick) == ("reads", ROW, True)
    assert record.conditions.versions.keys() == {"Python", "Prefect", "SQLAlchemy", "SQLite"}
    assert versions().items() <= record.conditions.versions.items()
    assert record.conditions.load is not None
    assert len(record.conditions.commit.rstrip("+")) == 10


def test_a_pass_that_is_to_be_forgotten_writes_nothing(tmp_path: Path) -> None:
    bench = Bench(FULL, tmp_path, None)
    bench.run("reads", lambda one: one.add(ROW))
    assert [record.row for record in bench.records] == [ROW]
    assert list(tmp_path.iterdir()) == []


def test_a_quick_pass_measures_less_of_everything() -> None:
    numbers = [name for name, value in vars(FULL).items() if isinstance(value, int | float) and name != "quick"]
    assert [name for name in numbers if not getattr(QUICK, name) < getattr(FULL, name)] == []
