"""Alembic from code, for `spine up`, the command line and the tests."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL

from spine.database import database_errors
from spine.migrations.engine import engine_for
from spine.private_files import make_private_file, make_private_folder
from spine.table_revisions import known_revisions, read_revision

MIGRATIONS = Path(__file__).parent


def alembic_config(url: URL) -> Config:
    """Configuration for `url`, passed as an object so that the password reaches no file or log."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = url
    return config


def current(url: URL) -> str | None:
    """The revision of the tables at `url`; None if there are none. Makes no database.

    Raises `DatabaseUnavailable` if the database is unreachable.
    """
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        return None
    engine = engine_for(url)
    try:
        with database_errors(), engine.connect() as connection:
            return read_revision(connection.connection.cursor(), url.get_backend_name())
    finally:
        engine.dispose()


def upgrade(url: URL) -> None:
    """Upgrade the tables at `url` to the newest revision; safe to repeat, and to interrupt at any moment.

    Tables of a later release stay as they are: this release works on them. Raises `DatabaseUnavailable` if the database
    is unreachable.
    """
    revision = current(url)
    if revision is not None and revision not in known_revisions():
        return
    with database_errors():
        if url.get_backend_name() == "sqlite" and url.database and not url.database.startswith((":memory:", "file:")):
            make_private_folder(Path(url.database).absolute().parent)
            # SQLite gives its journal files the permissions of the database.
            make_private_file(Path(url.database))
        command.upgrade(alembic_config(url), "head")
