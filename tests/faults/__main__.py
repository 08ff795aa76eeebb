"""`python -m tests.faults [--minutes 10] [--only redis,disk]`: the table of faults, measured and written down.

With `--only` the rows are printed and nothing is written.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.faults.faults import FAULTS, NotPossible
from tests.faults.measuring import Row, bench
from tests.faults.table import line, write


def main() -> int:
    """Measure; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long each fault is measured")
    parser.add_argument("--only", default=",".join(FAULTS), help=f"some of {', '.join(FAULTS)}")
    given = parser.parse_args()
    names = given.only.split(",")
    if unknown := set(names) - set(FAULTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    lines, is_well = [], True
    with tempfile.TemporaryDirectory(prefix="spine-faults-") as folder, bench(Path(folder)) as running:
        for name in names:
            try:
                seen = running.measure(FAULTS[name], given.minutes * 60)
            except NotPossible as reason:
                print(f"{name}: {reason}", flush=True)
                continue
            row = Row(seen, running.outcome(seen))
            lines.append(line(row))
            print(lines[-1], flush=True)
            problems = [*seen.surprises(), *(f"{what}: {count}" for what, count in row.outcome.broken.items())]
            is_well = is_well and not problems and seen.recovered is not None
            for problem in problems:
                print(f"  ! {problem}", flush=True)
    if set(names) == set(FAULTS):
        write(lines, given.minutes)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
