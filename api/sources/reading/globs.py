"""Patterns of paths, the same for all types of sources: `*`, `?` and `[...]` within a name, `**` for any folders.

As in a shell no wildcard stands for the dot that a hidden name begins with: files that are still being put in place
often have such a name.
"""

import re
from fnmatch import translate
from functools import lru_cache

ANY_FOLDERS = "**"
_MAGIC = re.compile(r"[*?[]")


def has_magic(pattern: str) -> bool:
    """Whether a path is a pattern."""
    return _MAGIC.search(pattern) is not None


def literal_parts(parts: list[str]) -> list[str]:
    """The folders before the first part that is a pattern."""
    for index, part in enumerate(parts):
        if has_magic(part):
            return parts[:index]
    return parts[:-1]


@lru_cache(maxsize=1_000)
def _compiled(pattern: str) -> re.Pattern[str]:
    hidden_too = pattern.startswith(".")
    return re.compile(translate(pattern) if hidden_too else rf"(?!\.){translate(pattern)}")


def name_matches(pattern: str, name: str) -> bool:
    """Whether one name fits one part of a pattern; `**` as a part fits any name that is not hidden."""
    return _compiled(pattern).match(name) is not None


def path_matches(pattern: str, path: str) -> bool:
    """Whether a path fits a pattern."""
    names = path.split("/")
    # Which numbers of leading names the parts of the pattern so far can stand for.
    reached = {0}
    for part in pattern.split("/"):
        if part == ANY_FOLDERS:
            reached = {end for start in reached for end in _spans(names, start)}
        else:
            reached = {end + 1 for end in reached if end < len(names) and name_matches(part, names[end])}
    return len(names) in reached


def _spans(names: list[str], start: int) -> list[int]:
    ends = [start]
    for index in range(start, len(names)):
        if names[index].startswith("."):
            break
        ends.append(index + 1)
    return ends
