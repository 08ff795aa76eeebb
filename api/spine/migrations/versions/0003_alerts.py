"""Create the tables of alerts."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op
from spine.tables.base import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_channels()
    _create_alerts()
    _create_deliveries()
    _create_claims()


def _create_channels() -> None:
    op.create_table(
        "alert_channels",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("channel_type", sa.String(length=20), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("recipients", sa.JSON(), nullable=False),
        sa.Column("min_severity", sa.String(length=10), nullable=False),
        sa.Column("domains", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("throttle_minutes", sa.Integer(), nullable=False),
        sa.Column("last_success_at", UtcDateTime(), nullable=True),
        sa.Column("last_failure_at", UtcDateTime(), nullable=True),
        sa.Column("consecutive_failures", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_channels")),
        sa.UniqueConstraint("name", name=op.f("uq_alert_channels_name")),
    )
    op.create_table(
        "alert_throttles",
        sa.Column("channel_id", sa.String(length=26), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("quiet_until", UtcDateTime(), nullable=False),
        sa.Column("held_back", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("channel_id", "key_hash", name=op.f("pk_alert_throttles")),
    )
    with op.batch_alter_table("alert_throttles", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_alert_throttles_quiet_until"), ["quiet_until"], unique=False)


def _create_alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("severity", sa.String(length=10), nullable=False),
        sa.Column("title", sa.String(length=500), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("source", sa.String(length=255), nullable=False),
        sa.Column("domain", sa.String(length=255), nullable=True),
        sa.Column("metadata", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("run_id", sa.String(length=255), nullable=True),
        sa.Column("execution_id", sa.String(length=255), nullable=True),
        sa.Column("error_category", sa.String(length=20), nullable=True),
        sa.Column("capture_id", sa.String(length=255), nullable=True),
        sa.Column("dedup_key", sa.String(length=255), nullable=True),
        sa.Column("cause", sa.String(length=255), nullable=True),
        sa.Column("deployment_id", sa.Uuid(), nullable=True),
        sa.Column("failed_at", UtcDateTime(), nullable=True),
        sa.Column("resolved_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
        sa.UniqueConstraint("cause", name=op.f("uq_alerts_cause")),
    )
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.create_index("ix_alerts_created_at", ["created_at", "severity", "source", "domain"], unique=False)
        batch_op.create_index("ix_alerts_domain", ["domain", "id"], unique=False)
        batch_op.create_index("ix_alerts_severity", ["severity", "id"], unique=False)
        batch_op.create_index("ix_alerts_source", ["source", "id"], unique=False)
        batch_op.create_index(
            "ix_alerts_unresolved",
            ["deployment_id"],
            unique=False,
            postgresql_where=sa.text("deployment_id IS NOT NULL AND resolved_at IS NULL"),
            sqlite_where=sa.text("deployment_id IS NOT NULL AND resolved_at IS NULL"),
        )


def _create_deliveries() -> None:
    op.create_table(
        "alert_deliveries",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("alert_id", sa.String(length=26), nullable=False),
        sa.Column("channel_id", sa.String(length=26), nullable=False),
        sa.Column("channel_name", sa.String(length=255), nullable=False),
        sa.Column("recipient", sa.String(length=320), nullable=True),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("attempted_at", UtcDateTime(), nullable=True),
        sa.Column("delivered_at", UtcDateTime(), nullable=True),
        sa.Column("delivery_ms", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.Column("next_retry_at", UtcDateTime(), nullable=True),
        sa.Column("due_at", UtcDateTime(), nullable=True),
        sa.Column("lease", sa.String(length=26), nullable=True),
        sa.Column("held_back", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["alert_id"], ["alerts.id"], name=op.f("fk_alert_deliveries_alert_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_deliveries")),
    )
    with op.batch_alter_table("alert_deliveries", schema=None) as batch_op:
        batch_op.create_index("ix_alert_deliveries_alert_id", ["alert_id"], unique=False)
        batch_op.create_index("ix_alert_deliveries_created_at", ["created_at", "status", "delivery_ms"], unique=False)
        batch_op.create_index(
            "ix_alert_deliveries_due",
            ["channel_id", "due_at"],
            unique=False,
            postgresql_where=sa.text("status = 'PENDING'"),
            sqlite_where=sa.text("status = 'PENDING'"),
        )
        batch_op.create_index(
            "ix_alert_deliveries_failed",
            ["created_at"],
            unique=False,
            postgresql_where=sa.text("status = 'FAILED'"),
            sqlite_where=sa.text("status = 'FAILED'"),
        )


def _create_claims() -> None:
    op.create_table(
        "run_alert_claims",
        sa.Column("state_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("deployment_id", sa.Uuid(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("state_id", name=op.f("pk_run_alert_claims")),
    )
    with op.batch_alter_table("run_alert_claims", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_run_alert_claims_ended_at"), ["ended_at"], unique=False)

    with op.batch_alter_table("follower_cursors", schema=None) as batch_op:
        batch_op.add_column(sa.Column("alerts_since", UtcDateTime(), nullable=True))
    # Earlier failures are history and raise no alert.
    cursors = sa.table("follower_cursors", sa.column("alerts_since", UtcDateTime()))
    op.execute(cursors.update().values(alerts_since=datetime.now(UTC)))
    with op.batch_alter_table("follower_cursors", schema=None) as batch_op:
        batch_op.alter_column("alerts_since", existing_type=UtcDateTime(), nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("follower_cursors", schema=None) as batch_op:
        batch_op.drop_column("alerts_since")
    for table in ("run_alert_claims", "alert_deliveries", "alerts", "alert_throttles", "alert_channels"):
        op.drop_table(table)
