"""The environment of Alembic: one connection, one lock and one transaction, on SQLite and PostgreSQL.

A process that is killed in between leaves the tables as they were. Of several that start together one migrates, and
the others wait for it and find nothing left to do.
"""

from alembic import context
from sqlalchemy import Connection, insert, text

from spine.actors import operator
from spine.migrations.engine import engine_for
from spine.table_revisions import newest_revision
from spine.tables import Base
from spine.tables.audit import DONE, AuditEntry
from spine.tables.base import utc_now

# An advisory lock, with a number that no other program uses.
MIGRATION_LOCK = 7_271_645


def run(connection: Connection) -> None:
    """Run the requested migrations, one process at a time."""
    context.configure(
        connection=connection, target_metadata=Base.metadata, render_as_batch=True, transactional_ddl=True
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        before = context.get_context().get_current_revision()
        context.run_migrations()
        _record_upgrade(connection, before, context.get_context().get_current_revision())


def _record_upgrade(connection: Connection, before: str | None, after: str | None) -> None:
    """Write to the audit trail that the tables were upgraded to those of this release."""
    if after == before or after != newest_revision():
        return
    who = operator()
    values = {"at": utc_now(), "actor": who.name, "actor_kind": who.kind.value, "action": "upgraded"}
    what = {"resource_type": "database", "resource_id": "database", "outcome": DONE}
    states = {"before": {"revision": before}, "after": {"revision": after}}
    connection.execute(insert(AuditEntry).values(**values, **what, **states))


engine = engine_for(context.config.attributes["url"])
with engine.connect() as connection:
    run(connection)
engine.dispose()
