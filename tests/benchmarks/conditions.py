"""Under which conditions a figure was measured: the load of the machine, versions, commit and date."""

import os
import platform
import sqlite3
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any

import psycopg

from tests.support.postgres import MACHINE_URL
from tests.support.processes import PROJECT

POSTGRESQL = "PostgreSQL"
SQLITE = "SQLite"


@dataclass(frozen=True)
class Conditions:
    """What is kept beside each figure."""

    commit: str
    date: str
    # The load average of the last minute before the measurement; None where it was not recorded.
    load: float | None
    versions: dict[str, str]
    quick: bool = False

    @property
    def text(self) -> str:
        """The versions as the table shows them."""
        return ", ".join(f"{name} {number}" for name, number in self.versions.items())

    def as_json(self) -> dict[str, Any]:
        """As the history keeps them."""
        return dict(vars(self))


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def now(engine: str, load_before: float, *, quick: bool) -> Conditions:
    """The conditions of a figure that was measured just now on this engine."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Conditions(commit(), date, round(load_before, 2), {**versions(), **engine_version(engine)}, quick)


@cache
def commit() -> str:
    """The commit of the code; with a plus sign if files differ from it."""
    head = _git("rev-parse", "--short=10", "HEAD")
    return f"{head}+" if _git("status", "--porcelain", "--", ".", ":!tests/benchmarks") else head


@cache
def versions() -> dict[str, str]:
    """The versions of what every figure depends on."""
    return {"Python": platform.python_version(), "Prefect": version("prefect"), "SQLAlchemy": version("sqlalchemy")}


@cache
def engine_version(engine: str) -> dict[str, str]:
    """The version of a database, by its name."""
    if engine == SQLITE:
        return {SQLITE: sqlite3.sqlite_version}
    if engine == POSTGRESQL:
        with psycopg.connect(MACHINE_URL) as connection:
            return {POSTGRESQL: str(connection.info.server_version // 10_000)}
    return {}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=PROJECT, check=True, capture_output=True, text=True)
    return done.stdout.strip()
