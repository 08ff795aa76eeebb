"""Give keys domains, an expiry and a time of last use.

Keys with `write` get `configure`, which keeps what they could do.

Add the table of domains that runs have had, with the domains of sources and alerts.
"""

import sqlalchemy as sa
from alembic import op
from spine.tables.base import UtcDateTime, utc_now

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.add_column(sa.Column("domains", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("expires_at", UtcDateTime(), nullable=True))
        batch_op.add_column(sa.Column("last_used_at", UtcDateTime(), nullable=True))
    _rename_scope("write", "configure")
    seen = op.create_table(
        "seen_domains",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_seen_domains")),
    )
    sources, alerts = (sa.table(name, sa.column("domain", sa.String())) for name in ("sources", "alerts"))
    both = sa.union(sa.select(sources.c.domain), sa.select(alerts.c.domain)).subquery()
    op.execute(seen.insert().from_select(["name"], sa.select(both).where(both.c.domain.is_not(None))))


def downgrade() -> None:
    op.drop_table("seen_domains")
    # The version before knows neither limit: such a key would be able to do more than it was made for.
    keys = sa.table("api_keys", sa.column("domains"), sa.column("expires_at"), sa.column("revoked_at", UtcDateTime()))
    limited = sa.or_(keys.c.domains.is_not(None), keys.c.expires_at.is_not(None))
    op.execute(keys.update().where(keys.c.revoked_at.is_(None), limited).values(revoked_at=utc_now()))
    _rename_scope("configure", "write")
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.drop_column("last_used_at")
        batch_op.drop_column("expires_at")
        batch_op.drop_column("domains")


def _rename_scope(old: str, new: str) -> None:
    keys = sa.table("api_keys", sa.column("id", sa.String()), sa.column("scopes", sa.JSON()))
    connection = op.get_bind()
    for key_id, scopes in connection.execute(sa.select(keys.c.id, keys.c.scopes)).all():
        if old in scopes:
            renamed = list(dict.fromkeys(new if scope == old else scope for scope in scopes))
            connection.execute(keys.update().where(keys.c.id == key_id).values(scopes=renamed))
