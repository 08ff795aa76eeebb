"""Walks an OpenAPI document, so that a test holds for every route, also for those that are added later."""

from collections.abc import Iterator
from typing import Any

Document = dict[str, Any]
Schema = dict[str, Any]
# No row has it, and every route takes it for an id.
NO_ID = "00000000-0000-0000-0000-000000000000"


def operations(document: Document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The method, the path below `/api/v1` and the operation of each route that needs a credential."""
    for path, methods in document["paths"].items():
        if path.startswith("/api/v1/"):
            for method, operation in methods.items():
                yield method.upper(), path.removeprefix("/api/v1"), operation


def parameters(operation: dict[str, Any], place: str) -> list[dict[str, Any]]:
    """The parameters of an operation that are in the path or in the query."""
    return [one for one in operation.get("parameters", []) if one["in"] == place]


def filled(path: str, operation: dict[str, Any], value: str = NO_ID) -> str:
    """The path with this value in place of each parameter."""
    for parameter in parameters(operation, "path"):
        path = path.replace(f"{{{parameter['name']}}}", value)
    return path


def fields_of_body(document: Document, operation: dict[str, Any]) -> dict[str, list[Schema]]:
    """The fields of an operation's body, each with the schemas that a value may have; empty if it has no body."""
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return {}
    (model,) = [one for one in _alternatives(content["application/json"]["schema"]) if one != {"type": "null"}]
    fields = _resolved(document, model)["properties"]
    return {name: [_resolved(document, one) for one in _alternatives(field)] for name, field in fields.items()}


def _alternatives(schema: Schema) -> list[Schema]:
    found: list[Schema] = schema.get("anyOf", [schema])
    return found


def _resolved(document: Document, schema: Schema) -> Schema:
    if "$ref" not in schema:
        return schema
    found: Schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found
