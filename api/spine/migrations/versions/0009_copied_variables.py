"""Remember the job variables that were copied to each schedule: what people changed since then stays."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "copied_variables",
        sa.Column("deployment_id", sa.Uuid(), nullable=False),
        sa.Column("job_variables", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("deployment_id", name=op.f("pk_copied_variables")),
    )


def downgrade() -> None:
    op.drop_table("copied_variables")
