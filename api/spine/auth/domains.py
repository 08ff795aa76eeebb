"""Which domains a credential may see and change.

A limited credential has patterns, in which `*` stands for any characters: `finra.*`, or `finra.otc` for one domain. It
sees what belongs to a matching domain and nothing else, not even what has no domain at all.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Text, false, literal, or_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from spine.errors import BadRequest, Forbidden, NotFound

MOST_PATTERNS = 100
LONGEST_PATTERN = 255
# Other wildcards could not be compared with the globs of alert channels.
_NOT_IN_PATTERNS = re.compile(r"[?\[\]\s]")


@dataclass(frozen=True)
class Domains:
    """The domains of a credential; `patterns` is None if it is not limited."""

    patterns: tuple[str, ...] | None = None

    @property
    def is_limited(self) -> bool:
        """Whether there is anything that the credential may not see."""
        return self.patterns is not None

    def allow(self, domain: str | None) -> bool:
        """Whether the credential may see what belongs to this domain; None is what belongs to none."""
        if self.patterns is None:
            return True
        return domain is not None and any(_matches(domain, pattern) for pattern in self.patterns)

    def allow_any(self, domains: Iterable[str]) -> bool:
        """Whether the credential may see what belongs to all of these domains."""
        return self.patterns is None or any(self.allow(domain) for domain in domains)

    def cover(self, globs: Sequence[str] | None) -> bool:
        """Whether every domain that these globs match is allowed; None is the glob of everything."""
        if self.patterns is None:
            return True
        # The characters of a set are replaced by a wildcard, because a pattern could match them one by one.
        return bool(globs) and all(self.allow(_widened(glob)) for glob in globs or ())

    def require(self, domain: str | None, what: str) -> None:
        """Raise `Forbidden` if the credential may not give this domain to `what` (an alert, a source)."""
        if not self.allow(domain):
            raise Forbidden(f"This credential is limited to the domains {self}; give {what} one of them.")

    def require_unlimited(self, what: str) -> None:
        """Raise `Forbidden` for a limited credential; `what` belongs to no domain."""
        if self.is_limited:
            raise Forbidden(f"This credential is limited to the domains {self}, and {what}.")

    def conditions(self, column: Any) -> list[ColumnElement[bool]]:
        """The SQL conditions for rows whose domain is allowed."""
        if self.patterns is None:
            return []
        return [or_(false(), *(_glob_match(column, pattern) for pattern in self.patterns))]

    def __str__(self) -> str:
        return ", ".join(repr(pattern) for pattern in self.patterns or ()) or "of no pattern"


EVERY_DOMAIN = Domains()


def hidden(what: str, id_or_name: str) -> NotFound:
    """The one error for what does not exist and for what the credential may not see."""
    return NotFound(f"No {what} has the id or name {id_or_name!r}.")


def parse_patterns(given: Sequence[str]) -> tuple[str, ...]:
    """Domain patterns, in the order given, each once. Raises `BadRequest` for one that is invalid."""
    if len(given) > MOST_PATTERNS:
        raise BadRequest(f"A credential can have at most {MOST_PATTERNS} domain patterns.")
    for pattern in given:
        if not 1 <= len(pattern) <= LONGEST_PATTERN or not pattern.isprintable() or _NOT_IN_PATTERNS.search(pattern):
            raise BadRequest(
                f"The domain pattern {pattern[:LONGEST_PATTERN]!r} is invalid: it needs 1 to {LONGEST_PATTERN} "
                "printable characters without spaces; `*` is the only wildcard."
            )
    return tuple(dict.fromkeys(given))


def _matches(domain: str, pattern: str) -> bool:
    return fnmatchcase(domain, pattern)


def _widened(glob: str) -> str:
    """A glob without sets that matches at least what `glob` matches."""
    return glob.partition("[")[0] + "*" if "[" in glob else glob


class _GlobMatch(FunctionElement[bool]):
    """The column matches a pattern, given for LIKE and for GLOB; letters of other case do not match."""

    name = "glob_match"
    type = Boolean()
    inherit_cache = True


def _glob_match(column: Any, pattern: str) -> _GlobMatch:
    escaped = re.sub(r"([\\%_])", r"\\\1", pattern).replace("*", "%")
    return _GlobMatch(column, literal(escaped, Text()), literal(pattern, Text()))


@compiles(_GlobMatch)
def _like(element: _GlobMatch, compiler: Any, **options: Any) -> str:
    column, like, _ = element.clauses
    return f"{compiler.process(column, **options)} LIKE {compiler.process(like, **options)}"


@compiles(_GlobMatch, "sqlite")
def _glob(element: _GlobMatch, compiler: Any, **options: Any) -> str:
    # LIKE ignores the case of letters on SQLite.
    column, _, glob = element.clauses
    return f"{compiler.process(column, **options)} GLOB {compiler.process(glob, **options)}"
