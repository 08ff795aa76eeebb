"""Alembic from code, for `spine up`, the command line and the tests."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL

from spine.database import database_errors

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
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    with database_errors():
        command.upgrade(alembic_config(url), "head")
