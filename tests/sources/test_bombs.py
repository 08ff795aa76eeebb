"""Whatever a file contains, the process that reads it stays within its memory and ends at its deadline."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from spine.egress.fetch_failure import FetchFailure
from spine.sources.parsers import ParserConfig

from tests.sources.bombs import BOMBS, Bomb
from tests.sources.isolated import MEMORY, SHARED, Desk

QUICK = ("fixed-dictionary.parquet", "laughs.xml", "window.csv.zst")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize(
    "bomb",
    [pytest.param(bomb, id=bomb.name, marks=[] if bomb.name in QUICK else pytest.mark.slow) for bomb in BOMBS],
)
def test_a_bomb_takes_no_more_memory_than_allowed(desk: Desk, bomb: Bomb) -> None:
    path, config = desk.write(bomb.name, bomb.content()), ParserConfig(**bomb.config)
    read = outcome(lambda: desk.read_file(path, config))
    peaks = [desk.peak_bytes]
    table = outcome(lambda: desk.table(path, config))
    peaks.append(desk.peak_bytes)
    # For the record, with `-rP`.
    print(f"{bomb.name}: {path.stat().st_size:,} bytes, {[peak >> 20 for peak in peaks]} MB; {read}; {table}")
    assert max(peaks) < MEMORY + SHARED
    assert matches(bomb.refusal, read), read
    assert matches(bomb.table_refusal or bomb.refusal, table), table
    assert list(desk.parts.glob("*")) == []


@pytest.mark.parametrize("name", ["children.xml", "objects.json"])
def test_a_bomb_ends_at_its_deadline(desk: Desk, name: str) -> None:
    (bomb,) = [bomb for bomb in BOMBS if bomb.name == name]
    path = desk.write(name, bomb.content())
    refused = outcome(lambda: desk.read_file(path, ParserConfig(), seconds=1.5))
    assert refused == "The source was not read within the 1.5 s that timeout_seconds allows."
    # The deadline is in real time. The time of the processor cannot be longer, however busy the machine is.
    assert desk.cpu_seconds < 1.5 + 1
    assert list(desk.parts.glob("*")) == []


def outcome(act: Callable[[], object]) -> str | None:
    """Why it is refused; None if it is not."""
    try:
        act()
    except FetchFailure as failure:
        return failure.sentence
    return None


def matches(pattern: str | None, found: str | None) -> bool:
    return found is None if pattern is None else re.search(pattern, found or "") is not None
