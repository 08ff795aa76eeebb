"""Checks each JSON schema once in Prefect's server, instead of two or three times for each run that is created.

Prefect checks the schema of a work pool's job variables, and that of a deployment's parameters, against the schema of
schemas before it checks values: 17 of the 40 ms that the creation of a run takes, in a transaction that holds SQLite's
write lock. Whether a schema is valid depends on nothing else.
"""

import hashlib
import inspect
import json
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import Any

from prefect.utilities.schema_tools import validation

_MOST_SCHEMAS = 1_000
_PARAMETERS = ("schema", "format_checker")


def install_schema_checks() -> list[str]:
    """Replace a function of Prefect in this process; the name that this version lacks, if it does."""
    validator: Any = getattr(validation, "_VALIDATOR", None)
    check = getattr(validator, "check_schema", None)
    if check is None or tuple(inspect.signature(check).parameters) != _PARAMETERS:
        return ["_VALIDATOR.check_schema"]
    validator.check_schema = _once(check)
    return []


def _once(check: Callable[..., None]) -> Callable[..., None]:
    """Check a schema unless it is one of the last that were valid."""
    valid: OrderedDict[bytes, None] = OrderedDict()

    @wraps(check)
    def check_schema(schema: Any, *args: Any, **kwargs: Any) -> None:
        # The order of the keys changes nothing in what is valid; what JSON cannot have is always checked.
        try:
            text = json.dumps([schema, bool(args or kwargs)], sort_keys=True)
        except (TypeError, ValueError):
            check(schema, *args, **kwargs)
            return
        digest = hashlib.sha256(text.encode()).digest()
        if digest not in valid:
            check(schema, *args, **kwargs)
            valid[digest] = None
            if len(valid) > _MOST_SCHEMAS:
                valid.popitem(last=False)

    return check_schema
