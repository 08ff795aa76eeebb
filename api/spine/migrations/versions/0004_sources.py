"""Create the tables of sources, fetches, the cache and connections."""

import sqlalchemy as sa
from alembic import op
from spine.tables.base import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OPEN = sa.text("status IN ('PENDING', 'RUNNING')")


def upgrade() -> None:
    _create_cache_blobs()
    _create_cache_counters()
    _create_database_connections()
    _create_cache_holds()
    _create_sources()
    _create_cache_entries()
    _create_fetches()
    _create_source_uses()


def _create_cache_blobs() -> None:
    op.create_table(
        "cache_blobs",
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("last_used_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("content_hash", name=op.f("pk_cache_blobs")),
    )

    with op.batch_alter_table("cache_blobs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_cache_blobs_last_used_at"), ["last_used_at"], unique=False)


def _create_cache_counters() -> None:
    op.create_table(
        "cache_counters",
        sa.Column("name", sa.String(length=20), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_cache_counters")),
    )


def _create_database_connections() -> None:
    op.create_table(
        "database_connections",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("db_type", sa.String(length=20), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("database", sa.String(length=1000), nullable=False),
        sa.Column("username", sa.String(length=255), nullable=True),
        sa.Column("password_ref", sa.String(length=255), nullable=True),
        sa.Column("pool_size", sa.Integer(), nullable=False),
        sa.Column("pool_overflow", sa.Integer(), nullable=False),
        sa.Column("ssl_mode", sa.String(length=20), nullable=False),
        sa.Column("ssl_cert_ref", sa.String(length=255), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("last_health_check_at", UtcDateTime(), nullable=True),
        sa.Column("health_status", sa.String(length=20), nullable=False),
        sa.Column("health_message", sa.Text(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_database_connections")),
        sa.UniqueConstraint("name", name=op.f("uq_database_connections_name")),
    )


def _create_cache_holds() -> None:
    op.create_table(
        "cache_holds",
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("until", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["content_hash"], ["cache_blobs.content_hash"], name=op.f("fk_cache_holds_content_hash")
        ),
        sa.PrimaryKeyConstraint("content_hash", "holder", name=op.f("pk_cache_holds")),
    )

    with op.batch_alter_table("cache_holds", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_cache_holds_holder"), ["holder"], unique=False)


def _create_sources() -> None:
    op.create_table(
        "sources",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("source_type", sa.String(length=20), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("domain", sa.String(length=255), nullable=True),
        sa.Column("parser_type", sa.String(length=20), nullable=True),
        sa.Column("parser_config", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("connection_id", sa.String(length=26), nullable=True),
        sa.Column("schedule_id", sa.Uuid(), nullable=True),
        sa.Column("last_fetch_at", UtcDateTime(), nullable=True),
        sa.Column("last_fetch_status", sa.String(length=10), nullable=True),
        sa.Column("last_fetch_error", sa.Text(), nullable=True),
        sa.Column("last_content_hash", sa.String(length=64), nullable=True),
        sa.Column("last_etag", sa.Text(), nullable=True),
        sa.Column("last_modified", UtcDateTime(), nullable=True),
        sa.Column("consecutive_failures", sa.Integer(), nullable=False),
        sa.Column("total_fetches", sa.Integer(), nullable=False),
        sa.Column("good_fetches", sa.Integer(), nullable=False),
        sa.Column("fetch_ms", sa.BigInteger(), nullable=False),
        sa.Column("reader", sa.String(length=26), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=True),
        sa.ForeignKeyConstraint(["connection_id"], ["database_connections.id"], name=op.f("fk_sources_connection_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sources")),
        sa.UniqueConstraint("name", name=op.f("uq_sources_name")),
    )

    with op.batch_alter_table("sources", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sources_connection_id"), ["connection_id"], unique=False)
        batch_op.create_index("ix_sources_domain", ["domain", "id"], unique=False)
        batch_op.create_index("ix_sources_source_type", ["source_type", "id"], unique=False)


def _create_cache_entries() -> None:
    op.create_table(
        "cache_entries",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("source_id", sa.String(length=26), nullable=False),
        sa.Column("cache_key", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("cached_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column("fetch_id", sa.String(length=26), nullable=True),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("encoding", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("validators", sa.JSON(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("bad_rows", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["content_hash"], ["cache_blobs.content_hash"], name=op.f("fk_cache_entries_content_hash")
        ),
        sa.ForeignKeyConstraint(
            ["source_id"], ["sources.id"], name=op.f("fk_cache_entries_source_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cache_entries")),
    )

    with op.batch_alter_table("cache_entries", schema=None) as batch_op:
        batch_op.create_index("ix_cache_entries_cached_at", ["cached_at", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_cache_entries_content_hash"), ["content_hash"], unique=False)
        batch_op.create_index("uq_cache_entries_source_id_key_hash", ["source_id", "key_hash"], unique=True)


def _create_fetches() -> None:
    op.create_table(
        "fetches",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("source_id", sa.String(length=26), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("trigger", sa.String(length=20), nullable=False),
        sa.Column("triggered_by", sa.String(length=255), nullable=True),
        sa.Column("force", sa.Boolean(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("completed_at", UtcDateTime(), nullable=True),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("content_changed", sa.Boolean(), nullable=False),
        sa.Column("bytes_fetched", sa.BigInteger(), nullable=True),
        sa.Column("rows_parsed", sa.BigInteger(), nullable=True),
        sa.Column("bad_rows", sa.BigInteger(), nullable=True),
        sa.Column("bad_row_examples", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("content_hash", sa.String(length=64), nullable=True),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("last_modified", UtcDateTime(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_category", sa.String(length=20), nullable=True),
        sa.Column("execution_id", sa.String(length=255), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("alive_until", UtcDateTime(), nullable=True),
        sa.Column("joined", sa.String(length=26), nullable=True),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_fetches_source_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fetches")),
    )

    with op.batch_alter_table("fetches", schema=None) as batch_op:
        batch_op.create_index("ix_fetches_open", ["created_at"], unique=False, postgresql_where=OPEN, sqlite_where=OPEN)
        batch_op.create_index(batch_op.f("ix_fetches_run_id"), ["run_id"], unique=False)
        batch_op.create_index("ix_fetches_source_id", ["source_id", "id"], unique=False)
        batch_op.create_index("ix_fetches_status", ["source_id", "status", "id"], unique=False)


def _create_source_uses() -> None:
    op.create_table(
        "source_uses",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("fetch_id", sa.String(length=26), nullable=False),
        sa.Column("capture_id", sa.String(length=64), nullable=False),
        sa.Column("used_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["fetch_id"], ["fetches.id"], name=op.f("fk_source_uses_fetch_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "fetch_id", name=op.f("pk_source_uses")),
    )

    with op.batch_alter_table("source_uses", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_source_uses_capture_id"), ["capture_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_source_uses_fetch_id"), ["fetch_id"], unique=False)


def downgrade() -> None:
    op.drop_table("source_uses")
    op.drop_table("fetches")
    op.drop_table("cache_entries")
    op.drop_table("sources")
    op.drop_table("cache_holds")
    op.drop_table("database_connections")
    op.drop_table("cache_counters")
    op.drop_table("cache_blobs")
