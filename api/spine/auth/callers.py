"""The caller of a request and its scopes."""

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a credential allows; each scope includes those before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True)
class Caller:
    """An authenticated caller: `id` is stable and unique, `name` is shown in `triggered_by`."""

    id: str
    name: str
    scopes: frozenset[Scope]

    def may(self, needed: Scope) -> bool:
        """Whether any scope of this caller includes `needed`."""
        order = list(Scope)
        return any(order.index(scope) >= order.index(needed) for scope in self.scopes)
