"""Count the changes of a source's configuration, and add the grace period of fetches whose lease has expired.

Alerts about the failures of a source are found by their key from this version on.
"""

import sqlalchemy as sa
from alembic import op
from spine.tables.base import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UNRESOLVED = sa.text("dedup_key IS NOT NULL AND resolved_at IS NULL")


def upgrade() -> None:
    with op.batch_alter_table("sources", schema=None) as batch_op:
        batch_op.add_column(sa.Column("config_version", sa.Integer(), nullable=False, server_default="1"))
    with op.batch_alter_table("fetches", schema=None) as batch_op:
        batch_op.add_column(sa.Column("config_version", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("last_call", UtcDateTime(), nullable=True))
    # Earlier fetches count as read with the current configuration.
    op.execute(sa.table("fetches", sa.column("config_version", sa.Integer())).update().values(config_version=1))
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.create_index(
            "ix_alerts_unresolved_key",
            ["dedup_key"],
            unique=False,
            postgresql_where=UNRESOLVED,
            sqlite_where=UNRESOLVED,
        )


def downgrade() -> None:
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.drop_index("ix_alerts_unresolved_key")
    with op.batch_alter_table("fetches", schema=None) as batch_op:
        batch_op.drop_column("last_call")
        batch_op.drop_column("config_version")
    with op.batch_alter_table("sources", schema=None) as batch_op:
        batch_op.drop_column("config_version")
