"""`python -m tests.benchmarks`: every figure next to what it is compared with, measured in the same pass."""

import argparse
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import alerts, conditions, finra, history, parsing, reads, schedules, sources, table, up
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import short
from tests.benchmarks.scale import FULL, QUICK

PARTS: dict[str, Callable[[Bench], None]] = {
    "up": up.measure_sqlite,
    "postgresql": up.measure_postgresql,
    "reads": reads.measure,
    "schedules": schedules.measure,
    "alerts": alerts.measure,
    "parsing": parsing.measure,
    "sources": sources.measure,
    "finra": finra.measure,
}


def main() -> None:
    """Measure the parts that the command line names, or all of them."""
    options = _options()
    # All that was started is stopped, however the pass ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    measured = [] if options.show else _measure(options)
    known = history.read() + (measured if options.forget else [])
    of = measured or [record for record in history.newest(known) if record.conditions.quick == options.quick]
    if options.show:
        print("\n".join([table.header(), *map(table.line, of)]))
    if measured and not options.forget:
        table.write_to_readme(known)
    if options.against:
        print("\n".join(history.comparison(known, of, options.against)))


def _measure(options: argparse.Namespace) -> list[history.Record]:
    load = conditions.load()
    print(f"The load of this machine is {short(load)}." + (" The figures will say so." if load > 1 else ""))
    print(table.header(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(QUICK if options.quick else FULL, Path(folder), None if options.forget else history.HISTORY)
        for part in options.parts or PARTS:
            bench.run(part, PARTS[part])
    missed = sum(record.row.is_met is False for record in bench.records)
    aimed = sum(bool(record.row.aims) for record in bench.records)
    print(f"{aimed - missed} of {aimed} rows with an aim meet it.")
    return bench.records


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="smaller numbers of everything, in about two minutes")
    parser.add_argument("--forget", action="store_true", help="write neither the history nor the README")
    parser.add_argument(
        "--against", metavar="COMMIT", help=f"show the change since a commit, or since the {history.LAST} figure"
    )
    parser.add_argument("--show", action="store_true", help="measure nothing, and show the newest figures")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"{unknown[0]} is not a part; the parts are {', '.join(PARTS)}")
    return options


if __name__ == "__main__":
    main()
