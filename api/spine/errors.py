"""The one family of errors that services raise.

    SpineError
    ├── BadRequest          400  right shape, wrong value
    ├── Unauthorized        401  no or bad credential
    ├── Forbidden           403  credential without the scope
    ├── NotFound            404  no such resource
    ├── Conflict            409  duplicate, or a transition that the state forbids
    └── Unavailable         503  a dependency is out of reach; carries Retry-After
        ├── PrefectUnavailable
        └── DatabaseUnavailable

`spine.http.errors` turns them into the error envelope; nothing here knows HTTP beyond the status code.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class FieldError:
    """One wrong value: where it is (path of keys and indexes from the body) and what is wrong with it."""

    loc: tuple[str | int, ...]
    msg: str


@dataclass
class SpineError(Exception):
    """Base of all errors with an answer of their own; `detail` is one sentence a person can act on."""

    detail: str
    errors: list[FieldError] = field(default_factory=list)

    status_code = 500

    def __str__(self) -> str:
        return self.detail


class BadRequest(SpineError):
    """The body has the right shape but a wrong value."""

    status_code = 400


class Unauthorized(SpineError):
    """No credential, or one that is not valid."""

    status_code = 401


class Forbidden(SpineError):
    """A valid credential without the scope that the route needs."""

    status_code = 403


class NotFound(SpineError):
    """No resource with this id or name."""

    status_code = 404


class Conflict(SpineError):
    """A duplicate name, or a transition that the present state forbids."""

    status_code = 409


class Unavailable(SpineError):
    """A dependency is out of reach; the same request can succeed after `retry_after_seconds`."""

    status_code = 503
    retry_after_seconds = 5


class PrefectUnavailable(Unavailable):
    """Prefect's API did not answer in time."""


class DatabaseUnavailable(Unavailable):
    """Spine's own database did not answer."""
