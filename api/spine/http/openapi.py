"""The OpenAPI 3.1 document, complete enough to generate typed clients."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from spine.http.errors import ErrorResponse
from spine.http.scopes import FIELD, scope_of

_EXAMPLES: dict[int, str] = {
    400: "Some parameters of the workflow 'finra.weekly_refresh' are invalid: tier: 'X' is not one of ['OTC', 'T1'].",
    401: "The API key is unknown or was revoked.",
    403: "This credential does not have the scope 'write', which this request requires.",
    404: "No workflow is named 'finra.weekly_refersh'. Did you mean 'finra.weekly_refresh'?",
    409: "Run 0b7c8a52-6f0e-4f2e-9a3f-0a5f3f0d8a11 has already ended as Completed.",
    413: "The body is larger than the limit of 1,048,576 bytes.",
    415: "Send the body as application/json.",
    416: "The range begins after the end of the content, which has 5,120 bytes.",
    422: "The request does not match the schema: query.limit: Input should be less than or equal to 100.",
    429: "Too many wrong credentials came from this address; wait 3 s.",
    503: "Prefect's API is out of reach; try again in a few seconds.",
}

_MEANINGS: dict[int, str] = {
    400: "The body matches the schema but has an invalid value.",
    401: "The credential is missing or invalid.",
    403: "The credential does not have the required scope.",
    404: "The resource was not found.",
    409: "The name exists already, the current state does not allow the request, or the stored row cannot be read.",
    413: "The body is larger than the limit.",
    415: "The body is not JSON.",
    416: "The range begins after the end of the content.",
    422: "The body or the query does not match the schema.",
    429: "This key, or this address, has sent too many requests.",
    503: "Prefect's API or the database is out of reach.",
}

# Every route of the API can return these.
ALWAYS = (401, 403, 429, 503)

REQUEST_ID = {"description": "Identifies this request in the server log.", "schema": {"type": "string"}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route: these errors and those that every route can return."""
    return {status: _error(status) for status in sorted({*statuses, *ALWAYS})}


def _error(status: int) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-ID": REQUEST_ID}
    if status in (429, 503):
        headers["Retry-After"] = {
            "description": "Seconds to wait before the next request.",
            "schema": {"type": "integer"},
        }
    return {
        "model": ErrorResponse,
        "description": _MEANINGS[status],
        "headers": headers,
        "content": {"application/json": {"example": {"detail": _EXAMPLES[status]}}},
    }


def install_openapi(app: FastAPI) -> None:
    """Make `app` serve its document, which is built once."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _finish(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    summary=app.summary,
                    description=app.description,
                    routes=app.routes,
                )
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _finish(schema: dict[str, Any]) -> dict[str, Any]:
    """Add the request id to every answer and replace FastAPI's validation errors with the envelope."""
    for name, path in schema["paths"].items():
        for method, operation in path.items():
            if name.startswith("/api/v1/"):
                operation.setdefault(FIELD, scope_of(method.upper(), None).value)
            for parameter in operation.get("parameters", []):
                _refuse_null(parameter["schema"])
            for status, response in list(operation["responses"].items()):
                content = response.get("content", {}).get("application/json", {})
                if content.get("schema", {}).get("$ref", "").endswith("/HTTPValidationError"):
                    operation["responses"][status] = {
                        "description": _MEANINGS[422],
                        "headers": {"X-Request-ID": REQUEST_ID},
                        "content": {
                            "application/json": {
                                "schema": {"$ref": "#/components/schemas/ErrorResponse"},
                                "example": {"detail": _EXAMPLES[422]},
                            }
                        },
                    }
                response.setdefault("headers", {})["X-Request-ID"] = REQUEST_ID
    for unused in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(unused, None)
    for model in schema["components"]["schemas"].values():
        for field in model.get("properties", {}).values():
            if field.get("default", ...) is None and ("type" in field or "$ref" in field):
                # A field that may be left out and cannot be null.
                del field["default"]
    return schema


def _refuse_null(schema: dict[str, Any]) -> None:
    """Take null out of a parameter's schema: a query or a header is text, and is left out instead."""
    given = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
    if len(given) == 1:
        del schema["anyOf"]
        schema |= given[0]
