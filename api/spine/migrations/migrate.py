"""Alembic from code, for `spine up`, the command line and the tests."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL

from spine.database import database_errors
from spine.private_files import make_private_file, make_private_folder

MIGRATIONS = Path(__file__).parent


def alembic_config(url: URL) -> Config:
    """Configuration for `url`, passed as an object so that the password reaches no file or log."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = url
    return config


def upgrade(url: URL) -> None:
    """Upgrade the database at `url` to the newest revision; safe to repeat.

    Raises `DatabaseUnavailable` if the database is unreachable.
    """
    with database_errors():
        if url.get_backend_name() == "sqlite" and url.database and not url.database.startswith((":memory:", "file:")):
            make_private_folder(Path(url.database).absolute().parent)
            # SQLite gives its journal files the permissions of the database.
            make_private_file(Path(url.database))
        command.upgrade(alembic_config(url), "head")
