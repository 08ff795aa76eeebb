"""What a child's log says about its end, in one line."""

import json
import re
from pathlib import Path

_TAIL_BYTES = 64 * 1024
_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@/\s]+@")
# Rich draws boxes around errors; colour codes mean nothing in a sentence.
_DECORATION = re.compile(r"\x1b\[[0-9;]*m|[─-╿]")
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Unavailable)\b.*")
_NOISE = (
    "Server stopped!",
    "For further information visit",
    "(Background on this error at",
    "An exception occurred",
    "^^",
)


def lines_since(log: Path, offset: int) -> list[str]:
    """The lines written after byte `offset` (at most the last 64 KiB), without decoration, blanks and noise."""
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(offset, size - _TAIL_BYTES))
        text = file.read().decode(errors="replace")
    lines = (_DECORATION.sub("", line).rstrip() for line in text.splitlines())
    return [line for line in lines if line.strip() and not line.strip().startswith(_NOISE)]


def last_words(log: Path, offset: int, at_most: int = 1) -> str:
    """What explains best why a process ended: the last exception, else the last lines, `at_most` so many."""
    lines = lines_since(log, offset)
    if not lines:
        return "it wrote nothing"
    exceptions = [line for line in lines if _EXCEPTION.match(line)]
    return presentable(exceptions[-1] if exceptions else " ".join(_message(line) for line in lines[-at_most:]))


def presentable(text: str) -> str:
    """One line without passwords and of bearable length."""
    return _PASSWORD.sub(r"\1:***@", " ".join(text.split()))[:400]


def _message(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    return str(entry.get("event", line)) if isinstance(entry, dict) else line
