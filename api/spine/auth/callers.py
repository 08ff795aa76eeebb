"""The caller of a request: its scopes and its domains."""

from dataclasses import dataclass
from enum import StrEnum

from spine.actors import ActorKind
from spine.auth.domains import EVERY_DOMAIN, Domains

# How the command line takes the time at which a credential expires.
EXPIRY_HELP = "A time from now (12h, 90d), a date or time in UTC (2027-01-31, 2027-01-31T18:00), or never."


class Scope(StrEnum):
    """What a credential allows; each scope includes those before it."""

    # Everything that GET shows.
    READ = "read"
    # Start, cancel and retry runs, fetch sources; raise, acknowledge, resolve and reopen alerts.
    WRITE = "write"
    # Make, change, test and delete channels, sources, connections and schedules; clear the cache.
    CONFIGURE = "configure"
    # Keys and the audit trail. A route that declares no scope needs this one.
    ADMIN = "admin"


@dataclass(frozen=True)
class Caller:
    """An authenticated caller: `id` is stable and unique, `name` is shown in `triggered_by`."""

    id: str
    name: str
    scopes: frozenset[Scope]
    domains: Domains = EVERY_DOMAIN
    kind: ActorKind = ActorKind.KEY

    def may(self, needed: Scope) -> bool:
        """Whether any scope of this caller includes `needed`."""
        order = list(Scope)
        return any(order.index(scope) >= order.index(needed) for scope in self.scopes)
