"""Checks parameters against a flow's schema before a run is created.

Prefect checks JSON types but not formats, accepts unknown names, and evaluates values that contain `__prefect_kind`.
These checks reject all three, so that a run starts only with parameters that its flow accepts.
"""

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError as InvalidSchema
from jsonschema.exceptions import ValidationError as SchemaError
from prefect.utilities.schema_tools.validation import CircularSchemaRefError, preprocess_schema, validate
from prefect.utilities.schema_tools.validation import ValidationError as PrefectValidationError
from pydantic import TypeAdapter, ValidationError
from referencing import Registry

from spine.errors import FieldError
from spine.json_rule import problems_of
from spine.prefect.filters import Json
from spine.text import storable

EVALUATED_KEY = "__prefect_kind"

_FORMATS: dict[str, TypeAdapter[Any]] = {
    "date": TypeAdapter(date),
    "date-time": TypeAdapter(datetime),
    "time": TypeAdapter(time),
    "duration": TypeAdapter(timedelta),
    "uuid": TypeAdapter(UUID),
}

_FORMAT_CHECKER = FormatChecker(formats=())


def _fits_format(adapter: TypeAdapter[Any], value: object) -> bool:
    # Checked with Pydantic because Prefect passes the value to Pydantic when the run starts.
    if isinstance(value, str):
        adapter.validate_python(value)
    return True


for _name, _adapter in _FORMATS.items():
    _FORMAT_CHECKER.checks(_name, raises=ValidationError)(lambda value, adapter=_adapter: _fits_format(adapter, value))


def check_parameters(schema: Json | None, defaults: Json, given: Json) -> list[FieldError]:
    """The errors in the parameters `given` to a deployment with `defaults`; empty if there are none.

    `schema` is the deployment's `parameter_openapi_schema`; the `loc` of each error begins with the parameter's name.
    """
    refused = problems_of(given)
    if refused and not refused[0].loc:
        # The parameters are too large as a whole.
        return refused
    if not refused and (of_defaults := problems_of_defaults(defaults, given)):
        return of_defaults
    refused = refused or [FieldError(path, reason) for path, reason in _evaluated_values(given, ())]
    if not schema:
        return refused
    names = {error.loc[0] for error in refused}
    given = {name: value for name, value in given.items() if storable(name) not in names}
    defaults = {**defaults, **{str(error.loc[0]): None for error in refused}}
    known = schema.get("properties", {})
    unknown = [
        FieldError((name,), f"the flow has no such parameter; it accepts {', '.join(known) or 'none'}")
        for name in given
        if name not in known and not schema.get("additionalProperties")
    ]
    validator = Draft202012Validator(
        # An empty registry: references to other documents are never fetched.
        preprocess_schema(schema),
        format_checker=_FORMAT_CHECKER,
        registry=Registry(),
    )
    wrong = [_to_field_error(error) for error in validator.iter_errors({**defaults, **given})]
    return refused + unknown + [error for error in wrong if _concerns(error, given, defaults)]


def problems_of_defaults(defaults: Json, given: Json) -> list[FieldError]:
    """What breaks the rule of free-form JSON in the defaults that a run would get besides the parameters `given`.

    Prefect could not list such a run.
    """
    left = {name: value for name, value in defaults.items() if name not in given}
    return [FieldError(one.loc, f"the deployment's default breaks a rule: {one.msg}") for one in problems_of(left)]


def prefect_accepts(schema: Json, parameters: Json) -> bool:
    """Whether Prefect accepts a deployment with these parameters and this schema, if it enforces the schema.

    This is weaker than `check_parameters`: names may be unknown or missing.
    """
    try:
        validate(parameters, schema, raise_on_error=True, ignore_required=True)
    except (PrefectValidationError, CircularSchemaRefError, InvalidSchema):
        return False
    return True


def _concerns(error: FieldError, given: Json, defaults: Json) -> bool:
    # A default that does not match the schema (for example a Jinja template) is not an error of the caller.
    name = error.loc[0] if error.loc else None
    return name in given or name not in defaults


def _to_field_error(error: SchemaError) -> FieldError:
    path = tuple(error.absolute_path)
    if error.validator == "required":
        # One error for each missing name, which is only in the message: "'tier' is a required property".
        return FieldError((*path, error.message.rpartition(" is a required")[0].strip("'")), "is required")
    if error.validator == "format":
        return FieldError(path, f"{error.instance!r} is not a {error.validator_value}")
    return FieldError(path, error.message)


def _evaluated_values(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The path of each value, at any depth, that Prefect would evaluate, with the reason that it is refused."""
    if isinstance(value, dict):
        if EVALUATED_KEY in value:
            yield path or (EVALUATED_KEY,), f"{EVALUATED_KEY!r} is not allowed: values are never evaluated"
        for key, inner in value.items():
            yield from _evaluated_values(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _evaluated_values(inner, (*path, index))
