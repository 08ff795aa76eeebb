"""The table of domains that runs have had."""

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from spine.tables.base import Base

LONGEST_DOMAIN = 255


class SeenDomain(Base):
    """A domain that a run had when it ended. Prefect cannot list the tags of its runs."""

    __tablename__ = "seen_domains"
    record = "seen domain"

    name: Mapped[str] = mapped_column(String(LONGEST_DOMAIN), primary_key=True)
