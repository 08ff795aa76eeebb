"""Remember the severity of the last alert that each throttle let through: a higher one passes."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("alert_throttles", schema=None) as batch_op:
        batch_op.add_column(sa.Column("severity", sa.String(length=10), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("alert_throttles", schema=None) as batch_op:
        batch_op.drop_column("severity")
