"""Each part of the topology fails under load; afterwards everything that was accepted has one outcome."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from tests.faults.audit import STEPS, Auditor
from tests.faults.faults import FAULTS, NotPossible
from tests.faults.load import ALERT, TRIGGER, Accepted, Load
from tests.faults.measuring import Bench, Seen, bench

pytestmark = pytest.mark.slow

SECONDS = 8


@dataclass(frozen=True)
class Measured:
    """All faults, one after the other, before anything is audited: runs of a lost worker take 90 s to be found."""

    bench: Bench
    seen: dict[str, Seen | NotPossible]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    """Every fault in its short form."""
    with bench(tmp_path_factory.mktemp("faults")) as made:
        seen: dict[str, Seen | NotPossible] = {}
        for name, fault in FAULTS.items():
            try:
                seen[name] = made.measure(fault, SECONDS)
            except NotPossible as reason:
                seen[name] = reason
        yield Measured(made, seen)


@pytest.mark.parametrize("name", FAULTS)
def test_what_was_accepted_around_a_fault_has_one_outcome(measured: Measured, name: str) -> None:
    seen = measured.seen[name]
    if isinstance(seen, NotPossible):
        pytest.skip(str(seen))
    assert seen.recovered is not None
    assert seen.surprises() == []
    assert measured.bench.outcome(seen).broken == {}


def test_the_audit_finds_what_is_lost_and_what_ran_twice(measured: Measured, tmp_path: Path) -> None:
    load = Load(measured.bench.whole.api_url, {}, tmp_path)
    load.accepted[TRIGGER].append(Accepted(0, "lost", str(uuid4())))
    load.accepted[ALERT].append(Accepted(0, "lost", "of-nobody"))
    load.keys.append("twice")
    (tmp_path / "twice").write_text("\n".join(STEPS + STEPS))
    found = Auditor(measured.bench.whole, measured.bench.desk).audit(load, 0)
    assert found.broken == {"runs_lost": 1, "runs_twice": 1, "alerts_lost": 1}
