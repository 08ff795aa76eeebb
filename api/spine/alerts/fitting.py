"""Cuts text to the length that a receiver accepts, counted as it counts, with a note of where the whole is."""

import unicodedata
from collections.abc import Callable

Measure = Callable[[str], int]

_ZERO_WIDTH_JOINER = "\u200d"
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)
_REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)


def utf16_units(text: str) -> int:
    """The length as JavaScript counts it: characters beyond the first 65,536 count twice."""
    return len(text) + sum(char > "\uffff" for char in text)


def utf8_bytes(text: str) -> int:
    """The length in bytes of UTF-8."""
    return len(text.encode("utf-8", "replace"))


def fit(text: str, limit: int, whole: str = "", measure: Measure = len) -> str:
    """The text, or if it measures more than `limit`, as much of it as fits together with a note.

    `whole` says where the whole text is, such as a URL. Without it, or if the note would take more than half of the
    limit, the note is an ellipsis. `measure` may not decrease when text is added. What is shown as one character stays
    together.
    """
    if measure(text) <= limit:
        return text
    note = f"… (cut; the whole text: {whole})" if whole else "…"
    if measure(note) * 2 > limit:
        note = "…"
    least, most = 0, len(text)
    while least < most:
        middle = (least + most + 1) // 2
        if measure(text[:middle] + note) <= limit:
            least = middle
        else:
            most = middle - 1
    return text[: _boundary(text, least)] + note


def _boundary(text: str, end: int) -> int:
    """The last place at or before `end` where a cut does not divide what is shown as one character."""
    while 0 < end < len(text) and _belongs_together(text, end):
        end -= 1
    return end


def _belongs_together(text: str, place: int) -> bool:
    before, after = text[place - 1], text[place]
    if _ZERO_WIDTH_JOINER in (before, after) or unicodedata.combining(after):
        return True
    code = ord(after)
    if code in _SKIN_TONES or code in _VARIATION_SELECTORS:
        return True
    if code not in _REGIONAL_INDICATORS:
        return False
    # Two of these are one flag.
    start = place
    while start and ord(text[start - 1]) in _REGIONAL_INDICATORS:
        start -= 1
    return (place - start) % 2 == 1
