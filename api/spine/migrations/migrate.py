"""Alembic from code: `spine up` and the tests build the same tables as the command line would."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL

from spine.database import database_errors

MIGRATIONS = Path(__file__).parent


def alembic_config(url: URL) -> Config:
    """Configuration for `url`, which travels as an object so that no file or log ever holds the password."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = url
    return config


def upgrade(url: URL) -> None:
    """Bring the database at `url` to the newest revision; safe to repeat.

    Raises `DatabaseUnavailable` when the database cannot be reached.
    """
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    with database_errors():
        command.upgrade(alembic_config(url), "head")
