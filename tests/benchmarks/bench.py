"""What every part of the benchmark is given: the scale of the pass, a folder, and the place for its rows."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks import conditions
from tests.benchmarks.figures import Row
from tests.benchmarks.history import Record, append
from tests.benchmarks.scale import Scale
from tests.benchmarks.table import line


@dataclass
class Bench:
    """One pass."""

    scale: Scale
    folder: Path
    # Where the records are added; None keeps them in memory only.
    history: Path | None
    part: str = ""
    records: list[Record] = field(default_factory=list)
    _load: float = field(default_factory=conditions.load)

    def run(self, part: str, measure: Callable[["Bench"], None]) -> None:
        """Measure one part, and say how long it took."""
        self.part, began = part, time.monotonic()
        self._load = conditions.load()
        measure(self)
        print(f"({part}: {time.monotonic() - began:.0f} s)", flush=True)

    def add(self, *rows: Row) -> None:
        """Print and keep rows; their load is that before they were measured, which is when the last one was added."""
        for row in rows:
            record = Record(self.part, row, conditions.now(row.engine, self._load, quick=self.scale.quick))
            self.records.append(record)
            if self.history:
                append(record, self.history)
            print(line(record), flush=True)
        self._load = conditions.load()
