"""Which scope each route needs.

Methods that read need `read`. Every other route declares its scope with `openapi_extra=needs(...)`, which shows it in
the OpenAPI document as `x-required-scope`; a route that declares none needs `admin`.
"""

from typing import Any

from spine.auth.callers import Scope

READING_METHODS = {"GET", "HEAD", "OPTIONS"}
FIELD = "x-required-scope"


def needs(scope: Scope) -> dict[str, Any]:
    """The `openapi_extra=` of a route that needs this scope."""
    return {FIELD: scope.value}


def scope_of(method: str, route: object) -> Scope:
    """The scope that a request with this method needs on this route."""
    declared = (getattr(route, "openapi_extra", None) or {}).get(FIELD)
    if declared is not None:
        return Scope(declared)
    return Scope.READ if method in READING_METHODS else Scope.ADMIN
