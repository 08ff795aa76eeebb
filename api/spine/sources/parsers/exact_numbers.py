"""Which numbers in text a double holds exactly, and the decimal type for those that it does not."""

from collections.abc import Callable, Iterable
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

MOST_DIGITS = 38
# Every number of so many digits is the shortest text of its double.
_ALWAYS_EXACT = 15
# The longest text of a double has fewer characters.
LONGEST_EXACT = 1_100
_EXPONENT = r"[eE]"


def inexact(texts: pa.Array) -> pa.Array:
    """Which numbers change when they become doubles and text again, as booleans; false for null and empty text.

    The change is one of value: 1.50 and 1.5 are the same, and so are 1e5 and 100000. Raises `pa.ArrowInvalid` for a
    text that is not a number.
    """
    candidates = doubtful(texts)
    # Most are written as Arrow writes them, which needs no check in Python.
    written = candidates.cast(pa.float64()).cast(pa.string())
    others = pc.unique(candidates.filter(pc.not_equal(candidates, written)))
    wrong = [text for text in others.to_pylist() if not is_exact(text)]
    return pc.is_in(texts, pa.array(wrong, pa.string()))


def doubtful(texts: pa.Array) -> pa.Array:
    """The numbers that a double may not hold: those of many digits, and those with an exponent."""
    digits = pc.utf8_length(pc.replace_substring_regex(texts, r"[^0-9]", ""))
    is_doubtful = pc.or_(pc.greater(digits, _ALWAYS_EXACT), pc.match_substring_regex(texts, _EXPONENT))
    return texts.filter(pc.fill_null(is_doubtful, False))


def is_exact(text: str) -> bool:
    """Whether the shortest text of the double is this number."""
    return len(text) <= LONGEST_EXACT and Decimal(repr(float(text))) == Decimal(text)


def decimal_type(chunks: Callable[[], Iterable[pa.Array]]) -> pa.DataType | None:
    """The decimal type that holds all these numbers exactly; None if none does, or one has an exponent."""
    whole = fraction = 0
    for texts in chunks():
        if pc.any(pc.match_substring_regex(texts, _EXPONENT)).as_py():
            return None
        whole = max(whole, _longest(texts, r"^-|\..*$"))
        fraction = max(fraction, _longest(texts, r"^[^.]*\.?"))
    return pa.decimal128(MOST_DIGITS, fraction) if whole + fraction <= MOST_DIGITS else None


def _longest(texts: pa.Array, without: str) -> int:
    return pc.max(pc.utf8_length(pc.replace_substring_regex(texts, without, ""))).as_py() or 0


def decimals(texts: pa.Array, type_: pa.DataType) -> pa.Array:
    """Texts as decimals. Raises `pa.ArrowInvalid` if the type cannot hold one exactly."""
    with_exponent = pc.fill_null(pc.match_substring_regex(texts, _EXPONENT), False)
    if with_exponent.true_count:
        # Arrow gives a wrong value for some numbers with an exponent that do not fit.
        written = [_written_out(text) for text in texts.filter(with_exponent).to_pylist()]
        texts = pc.replace_with_mask(texts, with_exponent, pa.array(written, pa.string()))
    return texts.cast(type_)


def _written_out(text: str) -> str:
    number = Decimal(text)
    if number and abs(number.adjusted()) > 2 * MOST_DIGITS:
        raise pa.ArrowInvalid(f"{text} does not fit")
    return format(number, "f") if number else "0"
