"""The one error envelope: `{"detail": str, "errors"?: [{"loc": [...], "msg": str}]}`."""

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from spine.database import database_errors
from spine.errors import DatabaseUnavailable, SpineError, TooManyRequests, Unauthorized, Unavailable
from spine.text import on_one_line, shortened, storable

# An answer about invalid input must not be as large as the input.
LONGEST_DETAIL = 4_000
LONGEST_NAME = 255
MOST_ERRORS = 100


class FieldProblem(BaseModel):
    """One invalid field."""

    loc: list[str | int] = Field(examples=[["body", "params", "week_ending"]])
    msg: str = Field(examples=["'2025-13-01' is not a date"])


class ErrorResponse(BaseModel):
    """The body of every error."""

    detail: str = Field(description="One sentence that says what to do.", examples=["No workflow is named 'x'."])
    errors: list[FieldProblem] | None = Field(default=None, description="The invalid fields, if any.")


# Replaces the details of FastAPI and Starlette, which do not say what to do.
_DETAILS = {
    400: "The body cannot be read as JSON.",
    404: "This path does not exist; /docs lists all routes.",
    405: "This path does not support this method; the header Allow lists the methods that it supports.",
}


def envelope(
    status_code: int,
    detail: str,
    errors: Sequence[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """An error in the one format of the API.

    What callers sent is part of it, so it is cut to a bounded length and to characters that can be sent.
    """
    content: dict[str, Any] = {"detail": shortened(on_one_line(detail), LONGEST_DETAIL)}
    if errors:
        content["errors"] = [_bounded(error) for error in errors[:MOST_ERRORS]]
    return JSONResponse(content, status_code=status_code, headers=headers)


def _bounded(error: dict[str, Any]) -> dict[str, Any]:
    loc = [shortened(storable(part), LONGEST_NAME) if isinstance(part, str) else part for part in error["loc"]]
    return {"loc": loc, "msg": shortened(storable(error["msg"]), LONGEST_DETAIL)}


def answer_of(error: SpineError) -> JSONResponse:
    """The answer for an error that a service raised."""
    headers: dict[str, str] = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Unavailable | TooManyRequests):
        headers["Retry-After"] = str(error.retry_after_seconds)
    problems = [{"loc": list(problem.loc), "msg": problem.msg} for problem in error.errors]
    return envelope(error.status_code, error.detail, problems, headers)


def method_not_allowed(methods: Iterable[str]) -> JSONResponse:
    """The answer for a path that has only these methods."""
    return envelope(405, _DETAILS[405], headers={"Allow": ", ".join(sorted(methods))})


def install_error_handlers(app: FastAPI) -> None:
    """Make `app` answer every error with the envelope."""
    app.add_exception_handler(SpineError, _answer_spine_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(SQLAlchemyError, _answer_database_error)


async def _answer_spine_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, SpineError):
        raise error
    return answer_of(error)


async def _answer_validation_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    # The invalid input itself is left out: it may be a secret in the wrong place.
    problems = [{"loc": list(problem["loc"]), "msg": problem["msg"]} for problem in error.errors()]
    named = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems)
    return envelope(422, f"The request does not match the schema: {named}.", problems)


async def _answer_http_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    detail = _DETAILS.get(error.status_code, str(error.detail))
    return envelope(error.status_code, detail, headers=dict(error.headers or {}))


async def _answer_database_error(_request: Request, error: Exception) -> JSONResponse:
    """Answer 503 if the database is out of reach; any other database error is a defect and is raised again."""
    if isinstance(error, DBAPIError | SQLAlchemyError):
        try:
            with database_errors():
                raise error
        except DatabaseUnavailable as unavailable:
            return answer_of(unavailable)
    raise error
