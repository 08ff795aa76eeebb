"""A connection with its secrets, for the moment in which it is used."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spine.errors import Conflict
from spine.prefect.client import Prefect
from spine.secrets.refs import resolve_ref
from spine.settings import Settings
from spine.tables.connections import DatabaseConnection


@dataclass(frozen=True)
class ConnectionTarget:
    """All that a driver needs; `ca` is the PEM of the authority to trust, None for those that the system trusts."""

    id: str
    name: str
    db_type: str
    host: str
    port: int
    database: str
    username: str | None
    ssl_mode: str
    allow_private: bool
    file_roots: Sequence[Path]
    password: str | None = field(default=None, repr=False)
    ca: str | None = field(default=None, repr=False)

    def scrubbed(self, text: str) -> str:
        """One line of what a server or driver said, without the secret that some of them repeat."""
        # The secret first: a line of its own may have other white space than the secret has.
        return " ".join((text.replace(self.password, "***") if self.password else text).split())


async def open_target(row: DatabaseConnection, prefect: Prefect, settings: Settings) -> ConnectionTarget:
    """Look up the secrets of a connection. Raises `Conflict` when it is disabled, and what `resolve_ref` raises."""
    if not row.enabled:
        raise Conflict(f"The connection {row.name!r} is disabled.")
    return ConnectionTarget(
        id=row.id,
        name=row.name,
        db_type=row.db_type,
        host=row.host or "",
        port=row.port or 0,
        database=row.database,
        username=row.username,
        ssl_mode=row.ssl_mode,
        allow_private=settings.allow_private_addresses,
        file_roots=settings.file_roots,
        password=await resolve_ref(row.password_ref, prefect) if row.password_ref else None,
        ca=await resolve_ref(row.ssl_cert_ref, prefect) if row.ssl_cert_ref else None,
    )
