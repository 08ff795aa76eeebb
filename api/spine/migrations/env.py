"""The environment of Alembic: one connection and one transaction, on SQLite and PostgreSQL."""

from alembic import context
from sqlalchemy import Connection, create_engine, text

from spine.database import SECONDS_TO_CONNECT
from spine.tables import Base

# An advisory lock, with a number that no other program uses: of several processes that start together, one migrates.
MIGRATION_LOCK = 7_271_645


def run(connection: Connection) -> None:
    """Run the requested migrations, one process at a time."""
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        context.run_migrations()


url = context.config.attributes["url"]
if url.get_backend_name() == "sqlite":
    url = url.set(drivername="sqlite")
else:
    url = url.update_query_dict({"connect_timeout": str(SECONDS_TO_CONNECT)})
engine = create_engine(url)
with engine.connect() as connection:
    run(connection)
engine.dispose()
