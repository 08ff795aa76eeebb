"""Makes text from outside fit for storage and display."""

import re

# NUL, which PostgreSQL rejects, and lone surrogates, which UTF-8 cannot encode.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def unstorable_characters(text: str) -> str | None:
    """Why a database or JSON cannot store this text; None if it can."""
    return "NUL characters and lone surrogates cannot be stored" if _UNSTORABLE.search(text) else None


def storable(text: str) -> str:
    """The text with U+FFFD in place of each character that a database rejects."""
    return _UNSTORABLE.sub("\ufffd", text)


def on_one_line(text: str) -> str:
    """The text with U+FFFD in place of line breaks and of all other characters that cannot be printed."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in text)


def shortened(text: str, longest: int) -> str:
    """The text, cut to `longest` characters; if it was cut, the last one is an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
