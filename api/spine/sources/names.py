"""Names of sources: they stand in paths, in tags, and in the names of Prefect's schedules."""

import re

from spine.errors import BadRequest, FieldError
from spine.prefect.deployments import BANNED_IN_NAMES

# Paths below `/sources` that are no sources.
RESERVED = {"cache", "connections", "fetches"}
_LOOKS_LIKE_AN_ID = re.compile("[0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{26}")


def check_name(name: str) -> None:
    """Raise `BadRequest` for a name that a path or a schedule cannot carry, or that could be another one's id."""
    problem = _problem_of(name)
    if problem:
        raise BadRequest(f"The name {name!r} {problem}.", [FieldError(("body", "name"), problem)])


def looks_like_an_id(text: str) -> bool:
    """Whether this is a ULID."""
    return _LOOKS_LIKE_AN_ID.fullmatch(text) is not None


def _problem_of(name: str) -> str | None:
    banned = [character for character in (*BANNED_IN_NAMES, "?", "#", "\\") if character in name]
    if banned:
        return f"contains {' and '.join(repr(one) for one in banned)}, which names of sources cannot"
    if name != name.strip() or not name.isprintable():
        return "begins or ends with a space, or has a character that cannot be printed"
    if name in RESERVED or name in {".", ".."}:
        return "is reserved"
    if looks_like_an_id(name):
        return "looks like an id"
    return None
