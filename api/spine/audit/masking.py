"""What an entry keeps of a resource: without secrets, and without what would make the trail large."""

import json
import re
from typing import Any

from spine.json_rule import presentable
from spine.secrets.sealed import MASK, redact

# Of one field, as JSON. Parameters of a run may have half a megabyte, and the run itself has them.
LONGEST_FIELD = 4_000

# Fields that hold a secret wherever they are; one that ends in `_ref` only refers to it.
_SECRET_NAME = re.compile(
    r"(?!.*_ref$).*(?:password|passwd|passphrase|secret|token|credential|authorization|cookie|private_?key|api_?key"
    r"|access_?key|routing_?key)",
    re.IGNORECASE,
)
_PASSWORD_IN_URL = re.compile(r"(://[^/\s:@]*):[^/\s@]+@")


def without_secrets(tree: Any) -> Any:
    """A tree with `***` for each stored secret, each field whose name says that it is one, and passwords in URLs."""
    return _masked(presentable(redact(tree)))


def kept(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """The fields of a resource as an entry stores them: without secrets, and cut."""
    return None if state is None else {name: _cut(value) for name, value in without_secrets(state).items()}


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: MASK if inner not in (None, "") and _SECRET_NAME.match(name) else _masked(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return _PASSWORD_IN_URL.sub(rf"\1:{MASK}@", value) if isinstance(value, str) else value


def _cut(value: Any) -> Any:
    size = len(json.dumps(value))
    return value if size <= LONGEST_FIELD else f"(left out: {size:,} bytes as JSON)"
