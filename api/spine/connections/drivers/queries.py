"""The forms of SELECT that write although the transaction is read-only, for each type of database that has any.

The driver's read-only transaction prevents all other writes. The rules are not in the driver modules, because a query
is also checked when its source is registered, where the driver's package may not be installed.
"""

import re
from dataclasses import dataclass

_QUOTED = r"""'(?:[^']|'')*'|"(?:[^"]|"")*\""""
_BLOCK_COMMENT = r"/\*.*?(?:\*/|\Z)"


@dataclass(frozen=True)
class _Rule:
    """What one type of database refuses.

    `skipped` matches strings, quoted names and comments. Because no pattern is as exact as the parser of the database,
    a query with all `words` of a forbidden form is also refused if it matches `ambiguous`.
    """

    forms: str
    forbidden: re.Pattern[str]
    words: tuple[frozenset[str], ...]
    skipped: re.Pattern[str]
    ambiguous: re.Pattern[str]
    # Comments whose content is executed.
    executable: re.Pattern[str] | None = None


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE | re.DOTALL)


_RULES = {
    # MySQL and MariaDB write files on the server.
    "mysql": _Rule(
        forms="INTO OUTFILE, INTO DUMPFILE and executable comments",
        # No word boundary before INTO: 1.5INTO is a number and a word.
        forbidden=_pattern(r"INTO\W+(?:OUTFILE|DUMPFILE)\b"),
        words=(frozenset({"outfile"}), frozenset({"dumpfile"})),
        # Two dashes begin a comment only before a space or a control character.
        skipped=_pattern(rf"{_QUOTED}|`(?:[^`]|``)*`|#[^\n]*|--(?=[\x00-\x20\x7f]|\Z)[^\n]*|{_BLOCK_COMMENT}"),
        # The SQL mode decides whether a backslash escapes a quote, and the version whether $$ is one.
        ambiguous=_pattern(r"""\\['"`]|\$\w*\$"""),
        executable=_pattern(r"/\*[MT]?!"),
    ),
    # Inline functions can write in an autonomous transaction.
    "oracle": _Rule(
        forms="WITH FUNCTION and WITH PROCEDURE",
        forbidden=_pattern(r"\bWITH\s+(?:FUNCTION|PROCEDURE)\b"),
        words=(frozenset({"with", "function"}), frozenset({"with", "procedure"})),
        skipped=_pattern(rf"{_QUOTED}|--[^\n]*|{_BLOCK_COMMENT}"),
        # Strings such as q'[...]', and a carriage return, which may end a comment.
        ambiguous=_pattern(r"q'|\r(?!\n)"),
    ),
    # Data-change tables write rows.
    "db2": _Rule(
        forms="FINAL TABLE, NEW TABLE and OLD TABLE",
        forbidden=_pattern(r"\b(?:FINAL|NEW|OLD)\s+TABLE\s*\("),
        words=(frozenset({"final", "table"}), frozenset({"new", "table"}), frozenset({"old", "table"})),
        skipped=_pattern(rf"{_QUOTED}|--[^\n]*|{_BLOCK_COMMENT}"),
        # Nested comments, and a carriage return, which may end a comment.
        ambiguous=_pattern(r"/\*(?:(?!\*/).)*/\*|\r(?!\n)"),
    ),
}
_WORD = re.compile("[a-z]+")


def check_query(db_type: str, query: str) -> None:
    """Raise `ValueError` if the query has a form that could write in this type of database."""
    rule = _RULES.get(db_type)
    if rule is None:
        return
    skipped = rule.skipped.findall(query)
    if rule.executable is not None and any(rule.executable.match(part) for part in skipped):
        raise ValueError(f"must not write: {rule.forms} are refused")
    if rule.forbidden.search(rule.skipped.sub(" ", query)):
        raise ValueError(f"must not write: {rule.forms} are refused")
    words = set(_WORD.findall(query.lower()))
    if any(needed <= words for needed in rule.words) and rule.ambiguous.search(query):
        raise ValueError(
            f"may write: it has the words of {rule.forms}, and quotes or comments whose extent is ambiguous; "
            "write it without them"
        )
