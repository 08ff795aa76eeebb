"""Configurations that hold secrets: between what clients send and see, what is stored, and what is worked with."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from spine.errors import BadRequest, FieldError
from spine.secrets.keyring import Keyring
from spine.secrets.sealed import keep_stored, seal, unseal

C = TypeVar("C", bound=BaseModel)


class SealedConfigs(Generic[C]):
    """The configurations of one `kind` of thing ("channel"), one model for each type of it.

    `check` raises `BadRequest` for what the model takes and this Spine does not.
    """

    def __init__(self, kind: str, types: Mapping[str, type[C]], keyring: Keyring, check: Callable[[C], None]) -> None:
        self._kind = kind
        self._types = types
        self._keyring = keyring
        self._check = check

    def store(self, type_name: str, sent: dict[str, Any], stored: dict[str, Any]) -> tuple[dict[str, Any], C]:
        """What is to be stored for a configuration, whose `***` keep what is `stored`.

        Raises `BadRequest` naming each wrong value.
        """
        plain = unseal(keep_stored(sent, stored), self._keyring)
        try:
            config = self._types[type_name].model_validate(plain)
        except ValidationError as refusal:
            raise self._refused(type_name, refusal) from None
        self._check(config)
        return seal(config.model_dump(exclude_none=True), self._keyring), config

    def open(self, type_name: str, stored: dict[str, Any]) -> C:
        """The configuration with its secrets, to work with. Raises `SecretUnreadable`."""
        return self._types[type_name].model_validate(unseal(stored, self._keyring))

    def _refused(self, type_name: str, refusal: ValidationError) -> BadRequest:
        errors = field_errors(refusal, "config")
        told = "; ".join(f"{'.'.join(map(str, error.loc[1:]))}: {error.msg}" for error in errors)
        return BadRequest(f"A {self._kind} of type {type_name} does not take this config: {told}.", errors)


def field_errors(refusal: ValidationError, field: str) -> list[FieldError]:
    """What a model refuses of a field of the body. The input stays out: it may be a secret."""
    return [FieldError(("body", field, *error["loc"]), error["msg"]) for error in refusal.errors(include_input=False)]
