"""The caller of a request: its scopes and its domains."""

from dataclasses import dataclass
from enum import StrEnum

from spine.auth.domains import EVERY_DOMAIN, Domains


class Scope(StrEnum):
    """What a credential allows; each scope includes those before it."""

    # Everything that GET shows.
    READ = "read"
    # Start, cancel and retry runs, fetch sources, raise alerts.
    WRITE = "write"
    # Make, change, test and delete channels, sources, connections and schedules; clear the cache.
    CONFIGURE = "configure"
    # Everything. A route that declares no scope needs this one.
    ADMIN = "admin"


@dataclass(frozen=True)
class Caller:
    """An authenticated caller: `id` is stable and unique, `name` is shown in `triggered_by`."""

    id: str
    name: str
    scopes: frozenset[Scope]
    domains: Domains = EVERY_DOMAIN

    def may(self, needed: Scope) -> bool:
        """Whether any scope of this caller includes `needed`."""
        order = list(Scope)
        return any(order.index(scope) >= order.index(needed) for scope in self.scopes)
