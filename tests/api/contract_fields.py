"""Definitions that the parts of the HTTP contract share."""

# A field's JSON type with `|null` where it can be null, or the values that it takes.
Fields = dict[str, str | list[str]]
CATEGORIES = [
    "NETWORK",
    "DATABASE",
    "STORAGE",
    "SOURCE",
    "PARSE",
    "VALIDATION",
    "CONFIG",
    "AUTH",
    "PIPELINE",
    "ORCHESTRATION",
    "INTERNAL",
    "UNKNOWN",
]
