"""The caller of a request and what it may do."""

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a credential allows; each scope includes the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True)
class Caller:
    """A checked credential: `id` is stable and unique, `name` is what people read in `triggered_by`."""

    id: str
    name: str
    scopes: frozenset[Scope]

    def may(self, needed: Scope) -> bool:
        """Whether any scope of this caller includes `needed`."""
        order = list(Scope)
        return any(order.index(scope) >= order.index(needed) for scope in self.scopes)
