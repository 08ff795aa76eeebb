"""Models that several parts of the API share."""

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from spine.errors import BadRequest, FieldError
from spine.json_rule import presentable, problems_of
from spine.text import unstorable_characters


class _Storable:
    """Refuses text that a database or JSON cannot store, and says so in the JSON schema."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_refuse_unstorable, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # JSON in UTF-8 has no lone surrogates, so NUL is all that a schema must exclude.
        return {**handler(schema), "pattern": r"^[^\u0000]*$"}


def _refuse_unstorable(text: str) -> str:
    if (reason := unstorable_characters(text)) is not None:
        raise ValueError(reason)
    return text


def _without_fraction(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# With `Field(strict=True)` before it, whole numbers are as JSON Schema defines them: 5.0 is one, "5" and true are not.
WHOLE = BeforeValidator(_without_fraction)

# Text that every database and JSON can store.
Text = Annotated[str, _Storable()]


def _refuse_bad_json(value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    field = str(info.field_name)
    problems = [FieldError(("body", field, *problem.loc), problem.msg) for problem in problems_of(value)]
    if problems:
        named = "; ".join(f"{'.'.join(map(str, problem.loc[1:]))}: {problem.msg}" for problem in problems)
        raise BadRequest(f"The field {field} is invalid: {named}.", problems)
    return value


# A free-form object in a request. What breaks the rule of `spine.json_rule` is a value, not a shape: 400, not 422.
JsonObject = Annotated[dict[str, Any], AfterValidator(_refuse_bad_json)]

# A free-form object in an answer; it may have been stored before there was a rule, or by a flow.
ShownJson = Annotated[dict[str, Any], BeforeValidator(presentable)]


# The form of ISO 8601 that clients write; `fromisoformat` also accepts any character between date and time.
_ISO_8601 = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII)


def _from_iso(text: object) -> object:
    # Pydantic would also accept numbers, as seconds or milliseconds since 1970.
    if text is None or isinstance(text, datetime):
        return text
    try:
        if isinstance(text, str) and _ISO_8601.fullmatch(text.upper()):
            return datetime.fromisoformat(text.upper())
    except ValueError:
        pass
    raise ValueError("must be a time in ISO 8601, for example 2026-01-05T06:30:00Z (+ is %2B in a URL)")


def _as_utc(time: datetime) -> datetime:
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time in UTC is outside the years 1 to 9999") from None


# A time in a query or a body; without an offset it is UTC.
UtcTime = Annotated[datetime, BeforeValidator(_from_iso), AfterValidator(_as_utc)]


class _NotNull:
    """Refuses null for a field that may be left out: `None` then means that it was not sent."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_refuse_null, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        given = handler(schema)
        (only,) = [one for one in given["anyOf"] if one != {"type": "null"}]
        return {**{name: value for name, value in given.items() if name != "anyOf"}, **only}


def _refuse_null(value: Any) -> Any:
    if value is None:
        raise PydanticCustomError("not_null", "cannot be null; leave it out to keep it")
    return value


NOT_NULL = _NotNull()


class CaseInsensitiveEnum(StrEnum):
    """An enumeration whose values are written in one case and accepted in any."""

    @classmethod
    def _missing_(cls, value: object) -> "CaseInsensitiveEnum | None":
        wanted = value.upper() if isinstance(value, str) else None
        return next((member for member in cls if member.value.upper() == wanted), None)


class ErrorCategory(CaseInsensitiveEnum):
    """The category of a failure."""

    NETWORK = "NETWORK"
    DATABASE = "DATABASE"
    STORAGE = "STORAGE"
    SOURCE = "SOURCE"
    PARSE = "PARSE"
    VALIDATION = "VALIDATION"
    CONFIG = "CONFIG"
    AUTH = "AUTH"
    PIPELINE = "PIPELINE"
    ORCHESTRATION = "ORCHESTRATION"
    INTERNAL = "INTERNAL"
    UNKNOWN = "UNKNOWN"


class ActionResponse(BaseModel):
    """The result of a change."""

    id: str
    status: str = Field(examples=["cancelled"])
    message: str
