"""Remember which store of the cache and which secret key belong to this database."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "installations",
        sa.Column("name", sa.String(length=20), nullable=False),
        sa.Column("store_marker", sa.String(length=26), nullable=False),
        sa.Column("store_claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("store_is_in_home", sa.Boolean(), nullable=False),
        sa.Column("key_check", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_installations")),
    )


def downgrade() -> None:
    op.drop_table("installations")
