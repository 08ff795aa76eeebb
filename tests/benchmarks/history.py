"""The history of all figures, `history.jsonl`: one JSON object for each row of each pass, oldest first."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.conditions import Conditions
from tests.benchmarks.figures import Row, short

HISTORY = Path(__file__).parent / "history.jsonl"
LAST = "last"


@dataclass(frozen=True)
class Record:
    """A row, the part of the benchmark that it belongs to, and its conditions."""

    part: str
    row: Row
    conditions: Conditions

    @property
    def key(self) -> tuple[str, str, bool]:
        """What makes two records comparable; a quick pass has other numbers of everything."""
        return *self.row.key, self.conditions.quick


def append(record: Record, path: Path = HISTORY) -> None:
    """Add a record to the end of the file."""
    entry = {**record.conditions.as_json(), "part": record.part, **record.row.as_json()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def read(path: Path = HISTORY) -> list[Record]:
    """All records, oldest first."""
    if not path.exists():
        return []
    return [_record(line) for line in path.read_text(encoding="utf-8").splitlines()]


def newest(records: Iterable[Record]) -> list[Record]:
    """The newest record of each row, in the order in which the rows were first measured."""
    return list({record.key: record for record in records}.values())


def earlier(records: list[Record], record: Record, against: str) -> Record | None:
    """The newest record of the same row before this one: of a commit, or of any with `last`."""
    for candidate in reversed(records[: records.index(record)]):
        if candidate.key == record.key and (against == LAST or candidate.conditions.commit.startswith(against)):
            return candidate
    return None


def comparison(records: list[Record], of: Iterable[Record], against: str) -> list[str]:
    """A line for each of these records that has an earlier one, with the change of its first figure."""
    found = ((record, earlier(records, record, against)) for record in of)
    return [_change(before, after) for after, before in found if before]


def _change(before: Record, after: Record) -> str:
    old, new = before.row.ours[0], after.row.ours[0]
    change = f"{(new.value / old.value - 1) * 100:+.0f} %" if old.value else "new"
    name = f"{after.row.what}, {after.row.engine}".removesuffix(", ")
    load = "" if before.conditions.load is None else f", load {short(before.conditions.load)}"
    return f"{name}: {old.text} ({before.conditions.commit}{load}) -> {new.text} ({change})"


def _record(line: str) -> Record:
    kept = json.loads(line)
    conditions = Conditions(**{name: kept[name] for name in ("commit", "date", "load", "versions", "quick")})
    return Record(kept["part"], Row.from_json(kept), conditions)
