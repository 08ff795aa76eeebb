"""Which tests run in one process one after the other, and which of them begin first.

The tests of a file stay together, as they share fixtures. Files of one group do, too: nothing else may happen to their
server meanwhile. What took longest in the last measured run begins first, so that no process is left alone with it at
the end; `python -m pytest --measure` writes these times anew.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest

MEASURED = Path(__file__).parents[1] / "durations.json"
# Groups of files by their patterns.
GROUPS = {
    "quiet server": (
        "tests/api/test_domains.py",
        "tests/api/test_changes.py",
        "tests/run_history/*",
        "tests/schedules/test_list_calls.py",
        "tests/schedules/test_preview.py",
        "tests/schedules/test_deploy_guard.py",
        "tests/schedules/test_code_sync.py",
    ),
    "one bucket": (
        "tests/sources/readers/test_s3.py",
        "tests/sources/readers/test_same_content.py",
        "tests/sources/test_finra_everywhere.py",
    ),
    # They share an API on each database, whose channels are those of one test at a time.
    "alerts": (
        "tests/alerts/test_channels.py",
        "tests/alerts/test_delivery.py",
        "tests/alerts/test_delivery_failures.py",
        "tests/alerts/test_email.py",
        "tests/alerts/test_matching.py",
        "tests/alerts/test_pruning.py",
        "tests/alerts/test_queries.py",
        "tests/alerts/test_servicenow.py",
    ),
    # The first deletes every source of its API after each test.
    "sources of the API": (
        "tests/sources/test_registry.py",
        "tests/sources/test_schedules_of_sources.py",
        "tests/api/test_nothing_else_changes.py",
        "tests/api/test_patches_of_rows.py",
    ),
    "one topology": ("tests/topology/test_topology.py", "tests/topology/test_outages.py"),
    "cache of the worker": ("tests/sources/test_end_to_end.py", "tests/sources/test_failing_runs.py"),
}
SLOW = "slow"


def group_of(nodeid: str) -> str:
    """The group of a test: what it has in common with those that must not run beside it."""
    return _group_of_file(nodeid.partition("::")[0])


@cache
def _group_of_file(file: str) -> str:
    return next((name for name, files in GROUPS.items() if any(fnmatch(file, one) for one in files)), file)


def half_of(item: pytest.Item) -> str:
    """The half of the suite that a test belongs to."""
    return "slow" if item.get_closest_marker(SLOW) else "default"


def put_in_order(items: list[pytest.Item]) -> None:
    """Put the groups that take longest in front; a file that was never measured counts as half a minute."""
    measured: Mapping[str, Mapping[str, float]] = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    # The checkers, while the servers of the others are still starting.
    seconds: defaultdict[str, float] = defaultdict(float, {"tests/test_house.py": 3600.0})
    files = {(half_of(item), item.nodeid.partition("::")[0]) for item in items}
    # Sorted, as a sum of floats depends on the order of its parts, which must be the same in all processes.
    for half, file in sorted(files):
        seconds[group_of(file)] += measured.get(half, {}).get(file, 30)
    items.sort(key=lambda item: (-seconds[group_of(item.nodeid)], group_of(item.nodeid)))


class Stopwatch:
    """Adds up how long the tests of each file take, and writes it down at the end."""

    def __init__(self) -> None:
        self._seconds: dict[str, defaultdict[str, float]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a setup, a call or a teardown."""
        half = "slow" if SLOW in report.keywords else "default"
        self._seconds.setdefault(half, defaultdict(float))[report.nodeid.partition("::")[0]] += report.duration

    def pytest_sessionfinish(self) -> None:
        """Write down what was measured; a half that did not run keeps its old numbers."""
        known: dict[str, Any] = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
        for half, seconds in self._seconds.items():
            known[half] = {file: round(seconds[file], 1) for file in sorted(seconds)}
        MEASURED.write_text(json.dumps(known, indent=1) + "\n")
