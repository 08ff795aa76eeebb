"""Find leaked secrets in the database, in the log, and in the API's responses."""

from collections.abc import Iterable

from spine.tables import Base
from sqlalchemy import create_engine, select

from tests.support.stack import Api

# Every secret in the tests of alerts contains one of these.
SECRETS = ("t0psecret", "s3cret", "s3cr3t", "t0k3n", "pa55word")


def find_leaks(api: Api, secrets: Iterable[str] = SECRETS) -> set[tuple[str, str]]:
    """Each secret that was found, and where; for use after the tests that used this API."""
    url = api.settings.sqlalchemy_url.render_as_string(hide_password=False).replace("+aiosqlite", "")
    engine = create_engine(url)
    with engine.connect() as connection:
        tables = Base.metadata.sorted_tables
        dump = "\n".join(str(tuple(row)) for table in tables for row in connection.execute(select(table)))
    engine.dispose()
    places = {"database": dump, "log": api.log.read_text(), "answers": "\n".join(api.answers)}
    return {(secret, place) for secret in secrets for place, text in places.items() if secret in text}
