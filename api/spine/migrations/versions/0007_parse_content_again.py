"""Have the next fetch of each source download and parse its content again.

Content that was counted before may be a page in place of data, or have more invalid rows than a fetch now allows.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sources = sa.table("sources", sa.column("config_version", sa.Integer()))
    entries = sa.table("cache_entries", sa.column("validators", sa.JSON()))
    op.execute(sa.update(sources).values(config_version=sources.c.config_version + 1))
    op.execute(sa.update(entries).values(validators={}))


def downgrade() -> None:
    """Nothing was added."""
