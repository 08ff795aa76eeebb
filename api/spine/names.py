"""Names that clients choose: they appear in URL paths, in tags and in the names of Prefect deployments."""

import re
from collections.abc import Iterable

from spine.errors import BadRequest, FieldError

# Prefect refuses these in the name of a deployment: `prefect.types.names.BANNED_CHARACTERS`.
BANNED_IN_NAMES = ("/", "%", "&", ">", "<")
# On a run or a deployment: the domain that it belongs to.
DOMAIN_TAG_PREFIX = "domain:"
# Paths below `/sources` that are not sources.
RESERVED = {"cache", "connections", "fetches"}
_LOOKS_LIKE_AN_ID = re.compile("[0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{26}")


def check_name(name: str) -> None:
    """Raise `BadRequest` for a name that a path or a deployment cannot have, or that looks like an id."""
    problem = _problem_of(name)
    if problem:
        raise BadRequest(f"The name {name!r} {problem}.", [FieldError(("body", "name"), problem)])


def domains_in(tags: Iterable[str]) -> set[str]:
    """The domains that an object with these tags belongs to."""
    return {tag.removeprefix(DOMAIN_TAG_PREFIX) for tag in tags if tag.startswith(DOMAIN_TAG_PREFIX)}


def looks_like_an_id(text: str) -> bool:
    """Whether this is a ULID."""
    return _LOOKS_LIKE_AN_ID.fullmatch(text) is not None


def _problem_of(name: str) -> str | None:
    banned = [character for character in (*BANNED_IN_NAMES, "?", "#", "\\") if character in name]
    if banned:
        return f"contains {' and '.join(repr(one) for one in banned)}, which is not allowed in names"
    if name != name.strip() or not name.isprintable():
        return "begins or ends with a space, or contains a character that cannot be printed"
    if name in RESERVED or name in {".", ".."}:
        return "is reserved"
    if looks_like_an_id(name):
        return "looks like an id"
    return None
