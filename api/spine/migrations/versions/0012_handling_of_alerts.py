"""Who acknowledged an alert and until when, deliveries of acknowledgements, and what they wait for.

The messages about the end of a problem are resolved from their beginning.
"""

import sqlalchemy as sa
from alembic import op
from spine.tables.base import UtcDateTime

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("acknowledged_by", sa.String(length=255), nullable=True))
        batch_op.add_column(sa.Column("snoozed_until", UtcDateTime(), nullable=True))
        batch_op.add_column(sa.Column("assignee", sa.String(length=255), nullable=True))
        batch_op.add_column(sa.Column("note", sa.Text(), nullable=True))
    with op.batch_alter_table("alert_deliveries", schema=None) as batch_op:
        batch_op.add_column(sa.Column("event", sa.String(length=12), nullable=True))
        batch_op.add_column(sa.Column("after_id", sa.String(length=26), nullable=True))
    op.create_table(
        "alert_acknowledgements",
        sa.Column("problem", sa.String(length=64), nullable=False),
        sa.Column("alert_id", sa.String(length=26), nullable=False),
        sa.Column("severity", sa.String(length=10), nullable=False),
        sa.ForeignKeyConstraint(
            ["alert_id"], ["alerts.id"], name=op.f("fk_alert_acknowledgements_alert_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("problem", name=op.f("pk_alert_acknowledgements")),
    )
    op.create_index(op.f("ix_alert_acknowledgements_alert_id"), "alert_acknowledgements", ["alert_id"])
    op.execute("UPDATE alerts SET resolved_at = created_at WHERE cause LIKE 'resolved:%' AND resolved_at IS NULL")


def downgrade() -> None:
    op.drop_table("alert_acknowledgements")
    # An earlier release would send these as alerts.
    op.execute("DELETE FROM alert_deliveries WHERE event IS NOT NULL")
    with op.batch_alter_table("alert_deliveries", schema=None) as batch_op:
        batch_op.drop_column("after_id")
        batch_op.drop_column("event")
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.drop_column("note")
        batch_op.drop_column("assignee")
        batch_op.drop_column("snoozed_until")
        batch_op.drop_column("acknowledged_by")
