"""Configurations with secrets: validated when a client sends them, sealed for storage, opened for use."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from spine.errors import BadRequest, FieldError
from spine.secrets.keyring import Keyring
from spine.secrets.sealed import restore_masked, seal, unseal

C = TypeVar("C", bound=BaseModel)


class SealedConfigs(Generic[C]):
    """The configurations of one `kind` of object ("channel"), with one model for each type.

    `check` raises `BadRequest` for a valid configuration that this installation does not allow.
    """

    def __init__(self, kind: str, types: Mapping[str, type[C]], keyring: Keyring, check: Callable[[C], None]) -> None:
        self._kind = kind
        self._types = types
        self._keyring = keyring
        self._check = check

    def store(self, type_name: str, sent: dict[str, Any], stored: dict[str, Any]) -> tuple[dict[str, Any], C]:
        """The sealed form to store of a configuration, and its model; each `***` keeps the `stored` secret.

        Raises `BadRequest` that lists each invalid value.
        """
        plain = unseal(restore_masked(sent, stored), self._keyring)
        try:
            config = self._types[type_name].model_validate(plain)
        except ValidationError as refusal:
            raise self._refused(type_name, refusal) from None
        self._check(config)
        return seal(config.model_dump(exclude_none=True), self._keyring), config

    def open(self, type_name: str, stored: dict[str, Any]) -> C:
        """The configuration with its secrets, for use. Raises `SecretUnreadable`."""
        return self._types[type_name].model_validate(unseal(stored, self._keyring))

    def _refused(self, type_name: str, refusal: ValidationError) -> BadRequest:
        errors = field_errors(refusal, "config")
        reasons = "; ".join(f"{'.'.join(map(str, error.loc[1:]))}: {error.msg}" for error in errors)
        return BadRequest(f"The config of a {self._kind} of type {type_name} is invalid: {reasons}.", errors)


def field_errors(refusal: ValidationError, field: str) -> list[FieldError]:
    """The validation errors of one field of the body, without the input, which may be a secret."""
    return [FieldError(("body", field, *error["loc"]), error["msg"]) for error in refusal.errors(include_input=False)]
