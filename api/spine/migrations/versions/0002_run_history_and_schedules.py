"""Create the tables of run history and schedules."""

import sqlalchemy as sa
from alembic import op
from spine.tables.base import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_run_history()
    _create_schedules()


def _create_run_history() -> None:
    op.create_table(
        "deployment_statistics",
        sa.Column("deployment_id", sa.Uuid(), nullable=False),
        sa.Column("run_count", sa.Integer(), nullable=False),
        sa.Column("success_count", sa.Integer(), nullable=False),
        sa.Column("failure_count", sa.Integer(), nullable=False),
        sa.Column("consecutive_failures", sa.Integer(), nullable=False),
        sa.Column("last_run_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("deployment_id", name=op.f("pk_deployment_statistics")),
    )
    op.create_table(
        "follower_cursors",
        sa.Column("name", sa.String(length=50), nullable=False),
        sa.Column("read_until", UtcDateTime(), nullable=True),
        sa.Column("leader", sa.String(length=100), nullable=True),
        sa.Column("leads_until", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_follower_cursors")),
    )
    op.create_table(
        "run_endings",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("deployment_id", sa.Uuid(), nullable=False),
        sa.Column("state_id", sa.Uuid(), nullable=False),
        sa.Column("outcome", sa.String(length=10), nullable=False),
        sa.Column("scheduled_at", UtcDateTime(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("ended_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_run_endings")),
    )
    with op.batch_alter_table("run_endings", schema=None) as batch_op:
        batch_op.create_index(
            "ix_run_endings_deployment_id", ["deployment_id", "outcome", "scheduled_at"], unique=False
        )
        batch_op.create_index("ix_run_endings_started_at", ["deployment_id", "started_at"], unique=False)
    # The row that is locked while outcomes are recorded.
    op.execute("INSERT INTO follower_cursors (name) VALUES ('runs')")


def _create_schedules() -> None:
    op.create_table(
        "schedule_holds",
        sa.Column("deployment_id", sa.Uuid(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("schedules", sa.JSON(), nullable=False),
        sa.Column("deployment_updated_at", UtcDateTime(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("deployment_id", name=op.f("pk_schedule_holds")),
    )
    op.create_table(
        "schedule_name_claims",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("claimed_by", sa.String(length=255), nullable=False),
        sa.Column("claimed_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_schedule_name_claims")),
    )


def downgrade() -> None:
    op.drop_table("schedule_name_claims")
    op.drop_table("schedule_holds")
    with op.batch_alter_table("run_endings", schema=None) as batch_op:
        batch_op.drop_index("ix_run_endings_started_at")
        batch_op.drop_index("ix_run_endings_deployment_id")

    op.drop_table("run_endings")
    op.drop_table("follower_cursors")
    op.drop_table("deployment_statistics")
