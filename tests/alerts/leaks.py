"""Look for secrets where none may be: in the database, in the log, and in every answer."""

from collections.abc import Iterable

from spine.tables import Base
from sqlalchemy import create_engine, select

from tests.support.stack import Api

# A part of every secret that the tests of alerts use.
SECRETS = ("t0psecret", "s3cret", "s3cr3t", "t0k3n", "pa55word")


def find_leaks(api: Api, secrets: Iterable[str] = SECRETS) -> set[tuple[str, str]]:
    """Which secret was found where, after the tests that used this API."""
    url = api.settings.sqlalchemy_url.render_as_string(hide_password=False).replace("+aiosqlite", "")
    engine = create_engine(url)
    with engine.connect() as connection:
        tables = Base.metadata.sorted_tables
        dump = "\n".join(str(tuple(row)) for table in tables for row in connection.execute(select(table)))
    engine.dispose()
    places = {"database": dump, "log": api.log.read_text(), "answers": "\n".join(api.answers)}
    return {(secret, place) for secret in secrets for place, text in places.items() if secret in text}
