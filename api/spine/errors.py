"""The errors that services raise.

    SpineError
    ├── BadRequest          400  matches the schema but has an invalid value
    ├── Unauthorized        401  missing or invalid credential
    ├── Forbidden           403  credential without the scope
    ├── NotFound            404  the resource was not found
    ├── Conflict            409  duplicate, or not allowed in the current state
    ├── TooManyRequests     429  a limit on requests; has Retry-After
    └── Unavailable         503  a dependency is out of reach; has Retry-After
        ├── PrefectUnavailable
        └── DatabaseUnavailable

`spine.http.errors` turns them into the error envelope; of HTTP, this module knows only the status codes.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class FieldError:
    """One invalid value: its path from the body (keys and indexes) and why it is invalid."""

    loc: tuple[str | int, ...]
    msg: str


@dataclass
class SpineError(Exception):
    """Base of all errors that a client sees; `detail` is one sentence that says what to do."""

    detail: str
    errors: list[FieldError] = field(default_factory=list)

    status_code = 500

    def __str__(self) -> str:
        return self.detail


class BadRequest(SpineError):
    """The body matches the schema but has an invalid value."""

    status_code = 400


class Unauthorized(SpineError):
    """The credential is missing or invalid."""

    status_code = 401


class Forbidden(SpineError):
    """The credential does not have the scope that the route requires."""

    status_code = 403


class NotFound(SpineError):
    """No resource with this id or name."""

    status_code = 404


class Conflict(SpineError):
    """A duplicate name, or a request that the current state does not allow."""

    status_code = 409


@dataclass
class TooManyRequests(SpineError):
    """A limit on requests is reached; the same request may succeed after `retry_after_seconds`."""

    retry_after_seconds: int = 1

    status_code = 429


class Unavailable(SpineError):
    """A dependency is out of reach; the same request may succeed after `retry_after_seconds`."""

    status_code = 503
    retry_after_seconds = 5


class PrefectUnavailable(Unavailable):
    """Prefect's API did not answer in time."""


class DatabaseUnavailable(Unavailable):
    """Spine's own database did not answer."""
