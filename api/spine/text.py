"""Text from outside, made fit to be stored and shown."""


def storable(text: str) -> str:
    """The text, with replacements for what a database refuses: PostgreSQL takes no NUL, UTF-8 no lone surrogates."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()


def shortened(text: str, longest: int) -> str:
    """The text, cut to `longest` characters; the last one is then an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
