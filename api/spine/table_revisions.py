"""The revisions of Spine's tables: which one a database has, and which ones this release knows.

The tables only grow within a release: a release works on the tables of the next one, and refuses older ones.
"""

from functools import cache
from pathlib import Path
from typing import Any

from spine.errors import DatabaseUnavailable

# The names of the files begin with the revision, so Alembic, which takes time and memory, need not be loaded.
_VERSIONS = Path(__file__).parent / "migrations" / "versions"

_HAS_REVISION = {
    "sqlite": "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'",
    "postgresql": "SELECT count(*) FROM pg_class WHERE oid = to_regclass('alembic_version')",
}


@cache
def known_revisions() -> tuple[str, ...]:
    """The revisions that this release knows, from the first to the newest."""
    return tuple(sorted(path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9]*_*.py")))


def newest_revision() -> str:
    """The revision that this release needs."""
    return known_revisions()[-1]


def read_revision(cursor: Any, dialect: str) -> str | None:
    """The revision of the database behind a DBAPI cursor; None if it has no tables of Spine.

    Raises the driver's errors.
    """
    cursor.execute(_HAS_REVISION[dialect])
    if not cursor.fetchone()[0]:
        return None
    cursor.execute("SELECT version_num FROM alembic_version")
    row = cursor.fetchone()
    return str(row[0]) if row else None


def problem_with(revision: str | None) -> str | None:
    """What this release cannot do with tables of that revision, in one sentence; None if it can work with them."""
    if revision is None:
        return "Spine's database has no tables of Spine yet; run `spine db upgrade`."
    if revision in known_revisions()[:-1]:
        return (
            f"The tables in Spine's database are older (revision {revision}) than this release needs "
            f"({newest_revision()}); run `spine db upgrade`."
        )
    return None


def describe(revision: str | None) -> str:
    """A revision in words, for people who look at the state of a database."""
    if revision is None:
        return "no tables"
    if revision not in known_revisions():
        return f"revision {revision}, of a later release than this one, which knows {newest_revision()}"
    return f"revision {revision}" + (", the newest" if revision == newest_revision() else f" of {newest_revision()}")


def require_tables(revision: str | None) -> None:
    """Raise `DatabaseUnavailable` if this release cannot work with tables of that revision."""
    if problem := problem_with(revision):
        raise DatabaseUnavailable(problem)
