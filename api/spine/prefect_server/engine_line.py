"""The line in the log of Prefect's server that says on which engine it keeps its tables."""

from sqlalchemy import make_url

_BEGINNING = "Prefect keeps its tables on "
_NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def name_of_engine(backend: str) -> str:
    """The name of an engine that SQLAlchemy calls `backend`."""
    return _NAMES.get(backend, backend)


def engine_line(database_url: str) -> str:
    """The line; without the URL, which can contain a password."""
    return f"{_BEGINNING}{name_of_engine(make_url(database_url).get_backend_name())}."


def engine_in(lines: list[str]) -> str | None:
    """The name of the engine in these lines of the log."""
    found = [line for line in lines if line.startswith(_BEGINNING)]
    return found[-1].removeprefix(_BEGINNING).rstrip(".") if found else None
