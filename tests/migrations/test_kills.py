"""Migrations that are killed: the tables are those of before or those of after, and the next start completes them."""

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from spine.migrations.migrate import alembic_config, current, upgrade
from spine.settings import Settings
from spine.table_revisions import known_revisions, newest_revision
from sqlalchemy import URL

from tests.migrations.test_migrations import OURS, as_url, tables_in
from tests.support.postgres import fresh_database
from tests.support.processes import PROJECT

KILLS = 20

# Loads everything once. For each line it forks a process that migrates, and kills it after so many seconds or waits for
# its end where the line is empty, and prints how many seconds the process had.
MIGRATE_AND_KILL = """
import os, signal, sys, time
from sqlalchemy import make_url
from spine.migrations.migrate import upgrade
import alembic.autogenerate, psycopg
url = make_url(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        upgrade(url)
        os._exit(0)
    if line.strip():
        time.sleep(float(line))
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(time.monotonic() - began, flush=True)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """An empty database."""
    if request.param == "sqlite":
        yield Settings(home=tmp_path).sqlalchemy_url
    else:
        with fresh_database(request.getfixturevalue("postgresql_url")) as database:
            yield as_url(database)


class Migrations:
    """Migrates in processes of their own, and kills them."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        assert self._read() == "ready\n"

    def run(self, seconds: float | None = None) -> float:
        """Migrate for so many seconds, or to the end; returns how many seconds it had."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n" if seconds is None else f"{seconds}\n")
        self._process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def migrations(url: URL) -> Iterator[Migrations]:
    """Migrations of this database."""
    script = [sys.executable, "-c", MIGRATE_AND_KILL, url.render_as_string(hide_password=False)]
    with subprocess.Popen(
        script, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield Migrations(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize("start", [None, *known_revisions()[:-1]])
def test_a_killed_migration_leaves_the_tables_of_before_or_of_after(url: URL, start: str | None) -> None:
    if start is not None:
        command.upgrade(alembic_config(url), start)
    with migrations(url) as migrating:
        seconds = migrating.run()
        assert current(url) == newest_revision()
        command.downgrade(alembic_config(url), start or "base")
        found = set()
        for _ in range(KILLS):
            migrating.run(random.uniform(0, seconds))
            found.add(current(url))
            assert found <= {start, newest_revision()}
            if current(url) == newest_revision():
                command.downgrade(alembic_config(url), start or "base")
    upgrade(url)
    assert tables_in(url) == {*OURS, "alembic_version"}
    command.check(alembic_config(url))
