"""A connection with its secrets resolved, which exists only while it is used."""

from dataclasses import dataclass, field

from spine.egress.paths import FileRoots
from spine.errors import Conflict
from spine.prefect.client import Prefect
from spine.secrets.refs import resolve_ref
from spine.settings import Settings
from spine.tables.connections import DatabaseConnection


@dataclass(frozen=True)
class ResolvedConnection:
    """All that a driver needs; `ca` is the PEM of the trusted authority, None for the system's authorities."""

    id: str
    name: str
    db_type: str
    host: str
    port: int
    database: str
    username: str | None
    ssl_mode: str
    allow_private: bool
    file_roots: FileRoots
    password: str | None = field(default=None, repr=False)
    ca: str | None = field(default=None, repr=False)

    def scrubbed(self, text: str) -> str:
        """The message of a server or driver as one line, without the password, which some messages repeat."""
        # The password first, because joining lines changes white space that may be part of it.
        return " ".join((text.replace(self.password, "***") if self.password else text).split())


async def resolve_connection(row: DatabaseConnection, prefect: Prefect, settings: Settings) -> ResolvedConnection:
    """Resolve the secrets of a connection. Raises `Conflict` if it is disabled, and what `resolve_ref` raises."""
    if not row.enabled:
        raise Conflict(f"The connection {row.name!r} is disabled.")
    return ResolvedConnection(
        id=row.id,
        name=row.name,
        db_type=row.db_type,
        host=row.host or "",
        port=row.port or 0,
        database=row.database,
        username=row.username,
        ssl_mode=row.ssl_mode,
        allow_private=settings.allow_private_addresses,
        file_roots=FileRoots.of(settings),
        password=await resolve_ref(row.password_ref, prefect, settings) if row.password_ref else None,
        ca=await resolve_ref(row.ssl_cert_ref, prefect, settings) if row.ssl_cert_ref else None,
    )
