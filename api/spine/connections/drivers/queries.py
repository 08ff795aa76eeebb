"""The forms of SELECT that write although the transaction is read-only, for each type of database that has any.

The driver's read-only transaction prevents all other writes. Functions are refused that act on files, on the server or
outside of the transaction; functions that the database's own users have written cannot be known, so the rights of the
user remain what protects a database. The rules are not in the driver modules, because a query
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
    a query with all `words` of a forbidden form, or with a function anywhere, is also refused if it is `ambiguous`.
    """

    forms: str
    forbidden: re.Pattern[str] | None
    # Names of functions and packages, which count within double quotes, too.
    functions: re.Pattern[str] | None
    words: tuple[frozenset[str], ...]
    skipped: re.Pattern[str]
    ambiguous: re.Pattern[str]
    # Comments whose content is executed.
    executable: re.Pattern[str] | None = None


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE | re.DOTALL)


def _names(*patterns: str) -> re.Pattern[str]:
    """A pattern of whole names, and of PostgreSQL's U&"...", in which escapes can hide a name."""
    return _pattern(rf"(?<![\w$])(?:(?:{'|'.join(patterns)})(?![\w$])|U&\")")


_RULES = {
    # Large objects, files and the server itself are outside of the transaction; others run SQL that a text contains.
    "postgresql": _Rule(
        forms="functions that write large objects or files, act on the server, or run SQL from a text, and U&",
        forbidden=None,
        functions=_names(
            *(r"lo_(?:creat|create|import|export|from_bytea|put|truncate|truncate64|unlink)", "lowrite"),
            *(r"pg_file_\w+", r"pg_(?:reload_conf|promote|notify)", r"pg_rotate_logfile\w*", r"pg_switch_(?:wal|xlog)"),
            *(r"pg_(?:terminate|cancel)_backend", r"pg_create_restore_point", r"pg_wal_replay_(?:pause|resume)"),
            *(r"pg_(?:start_backup|stop_backup|backup_start|backup_stop)", r"pg_logical_emit_message"),
            *(r"pg_(?:create|copy|drop)_\w*replication_slot", r"pg_replication_\w+", r"pg_logical_slot_get_\w+"),
            *(r"pg_stat_\w*reset\w*", r"pg_import_system_collations", r"pg_(?:try_)?advisory_\w+"),
            *("set_config", r"dblink\w*", r"query_to_xml\w*", "xpath_table"),
        ),
        words=(),
        # Block comments nest.
        skipped=_pattern(rf"{_QUOTED}|--[^\n\r]*|{_BLOCK_COMMENT}"),
        ambiguous=_pattern(r"""\\['"]|\$\w*\$|/\*(?:(?!\*/).)*/\*"""),
    ),
    # MySQL and MariaDB write files on the server.
    "mysql": _Rule(
        forms="INTO OUTFILE, INTO DUMPFILE and executable comments",
        # No word boundary before INTO: 1.5INTO is a number and a word.
        forbidden=_pattern(r"INTO\W+(?:OUTFILE|DUMPFILE)\b"),
        functions=None,
        words=(frozenset({"outfile"}), frozenset({"dumpfile"})),
        # Two dashes begin a comment only before a space or a control character.
        skipped=_pattern(rf"{_QUOTED}|`(?:[^`]|``)*`|#[^\n]*|--(?=[\x00-\x20\x7f]|\Z)[^\n]*|{_BLOCK_COMMENT}"),
        # The SQL mode decides whether a backslash escapes a quote, and the version whether $$ is one.
        ambiguous=_pattern(r"""\\['"`]|\$\w*\$"""),
        executable=_pattern(r"/\*[MT]?!"),
    ),
    # Inline functions can write in an autonomous transaction; the packages reach files, other servers and the system.
    "oracle": _Rule(
        forms="WITH FUNCTION, WITH PROCEDURE and the packages UTL_*, DBMS_JAVA, DBMS_SCHEDULER, DBMS_JOB and DBMS_PIPE",
        forbidden=_pattern(r"\bWITH\s+(?:FUNCTION|PROCEDURE)\b"),
        functions=_names(r"UTL_(?:FILE|HTTP|TCP|SMTP|MAIL|INADDR)", r"DBMS_(?:JAVA\w*|SCHEDULER|JOB|PIPE)"),
        words=(frozenset({"with", "function"}), frozenset({"with", "procedure"})),
        skipped=_pattern(rf"{_QUOTED}|--[^\n]*|{_BLOCK_COMMENT}"),
        # Strings such as q'[...]', and a carriage return, which may end a comment.
        ambiguous=_pattern(r"q'|\r(?!\n)"),
    ),
    # Data-change tables write rows; functions of MQ send and consume messages, and packages reach files and servers.
    "db2": _Rule(
        forms="FINAL TABLE, NEW TABLE, OLD TABLE, MQSEND, MQPUBLISH, MQRECEIVE and the packages UTL_* and DBMS_PIPE",
        forbidden=_pattern(r"\b(?:FINAL|NEW|OLD)\s+TABLE\s*\("),
        functions=_names(r"MQ(?:SEND|PUBLISH|RECEIVE)\w*", r"UTL_(?:FILE|TCP|SMTP|MAIL)", "DBMS_PIPE"),
        words=(frozenset({"final", "table"}), frozenset({"new", "table"}), frozenset({"old", "table"})),
        skipped=_pattern(rf"{_QUOTED}|--[^\n]*|{_BLOCK_COMMENT}"),
        # Nested comments, and a carriage return, which may end a comment.
        ambiguous=_pattern(r"/\*(?:(?!\*/).)*/\*|\r(?!\n)"),
    ),
}
_WORD = re.compile("[a-z]+")


def _has_form(rule: _Rule, query: str) -> bool:
    return rule.forbidden is not None and rule.forbidden.search(rule.skipped.sub(" ", query)) is not None


def _calls(rule: _Rule, query: str) -> bool:
    if rule.functions is None:
        return False
    code = rule.skipped.sub(lambda found: found[0] if found[0].startswith('"') else " ", query)
    return rule.functions.search(code) is not None


def check_query(db_type: str, query: str) -> None:
    """Raise `ValueError` if the query has a form that could write in this type of database."""
    rule = _RULES.get(db_type)
    if rule is None:
        return
    skipped = rule.skipped.findall(query)
    if rule.executable is not None and any(rule.executable.match(part) for part in skipped):
        raise ValueError(f"must not write: {rule.forms} are refused")
    if _has_form(rule, query) or _calls(rule, query):
        raise ValueError(f"must not write: {rule.forms} are refused")
    words = set(_WORD.findall(query.lower()))
    has_words = any(needed <= words for needed in rule.words) or (rule.functions and rule.functions.search(query))
    if has_words and rule.ambiguous.search(query):
        raise ValueError(
            f"may write: it has the words of {rule.forms}, and quotes or comments whose end is ambiguous; "
            "remove these quotes and comments"
        )
