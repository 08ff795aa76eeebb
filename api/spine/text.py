"""Makes text from outside fit for storage and display."""


def storable(text: str) -> str:
    """The text without characters that a database rejects: NUL (PostgreSQL) and lone surrogates (UTF-8)."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()


def shortened(text: str, longest: int) -> str:
    """The text, cut to `longest` characters; if it was cut, the last one is an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
