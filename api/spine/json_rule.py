"""The one rule for free-form JSON: what a caller may send, and how stored JSON that breaks the rule is shown.

A free-form field is a JSON object whose keys Spine does not know: `metadata`, `params`, `target_params`, `config`,
`parser_config`. Whatever passes this rule can be stored by every database, kept by Prefect and sent as JSON.
"""

import json
from math import isfinite
from typing import Any

from spine.errors import FieldError
from spine.text import storable, unstorable_characters

# Levels of objects and lists. From about 200 on, Prefect stores a run that neither its API nor ours can list.
DEEPEST = 64
# As JSON text in ASCII. Prefect refuses larger parameters.
LARGEST = 512 * 1024
# Databases and other languages read whole numbers as 64 bits, with a sign.
LEAST_INTEGER, GREATEST_INTEGER = -(2**63), 2**63 - 1
# A client that is given this many errors has enough to correct.
MOST_PROBLEMS = 100

TOO_DEEP = f"is nested more than {DEEPEST} levels deep"

_Path = tuple[str | int, ...]


def problems_of(value: dict[str, Any]) -> list[FieldError]:
    """What breaks the rule in a free-form object, at most 100 errors; each `loc` is a path from the object itself."""
    # First, and in C, so that what is walked below is bounded.
    try:
        size = len(json.dumps(value))
    except RecursionError:
        return [FieldError((), TOO_DEEP)]
    if size > LARGEST:
        return [FieldError((), f"is {size:,} bytes as JSON; at most {LARGEST:,} are allowed")]
    found: list[FieldError] = []
    _collect(value, (), found)
    return found[:MOST_PROBLEMS]


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON; Python also takes 1, 1.0 and true for the same."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _collect(value: dict[str, Any] | list[Any], path: _Path, found: list[FieldError]) -> None:
    if value and len(path) >= DEEPEST:
        found.append(FieldError(path[:1], TOO_DEEP))
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if len(found) >= MOST_PROBLEMS:
            return
        if isinstance(key, str) and (reason := unstorable_characters(key)) is not None:
            found.append(FieldError((*path, storable(key)), f"this name is invalid: {reason}"))
        elif isinstance(inner, dict | list):
            _collect(inner, (*path, key), found)
        elif (reason := _problem_of_leaf(inner)) is not None:
            found.append(FieldError((*path, key), reason))


def _problem_of_leaf(value: Any) -> str | None:
    if isinstance(value, str):
        return unstorable_characters(value)
    if isinstance(value, float) and not isfinite(value):
        return "NaN and infinite numbers are not JSON"
    if isinstance(value, int) and not LEAST_INTEGER <= value <= GREATEST_INTEGER:
        return "whole numbers must fit into 64 bits"
    return None


def presentable(value: Any, level: int = 0) -> Any:
    """Stored JSON as it can be sent: without what breaks the rule, which older versions and flows could store.

    NUL and lone surrogates become U+FFFD, NaN and infinite numbers become null, and what is too deep becomes a text.
    """
    if isinstance(value, dict | list | tuple) and value and level >= DEEPEST:
        return f"({TOO_DEEP})"
    if isinstance(value, dict):
        return {storable(str(key)): presentable(inner, level + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [presentable(inner, level + 1) for inner in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return storable(value) if isinstance(value, str) else value
