"""Configurations with secrets: validated when a client sends them, sealed for storage, opened for use."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from spine.errors import BadRequest, Conflict, FieldError
from spine.secrets.keyring import Keyring
from spine.secrets.sealed import masked_paths, restore_masked, seal, unseal


class SecretConfig(BaseModel):
    """A configuration in which a client can keep a stored secret by sending `***`.

    That is possible only while the secret keeps its destination: every field must stay the same, except for those in
    `free_fields`, which cannot send a secret to anyone else. A new field is part of the destination until it is listed.
    """

    free_fields: ClassVar[frozenset[str]] = frozenset()

    def destination(self) -> dict[str, Any]:
        """The values that decide where the secrets are sent, by field."""
        return {name: _plain(getattr(self, name)) for name in type(self).model_fields if name not in self.free_fields}


C = TypeVar("C", bound=SecretConfig)


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

        Raises `BadRequest` that lists each invalid value, and for a `***` whose secret would go to another destination.
        """
        plain = unseal(restore_masked(sent, stored), self._keyring)
        try:
            config = self._type(type_name).model_validate(plain)
        except ValidationError as refusal:
            raise self._refused(type_name, refusal) from None
        self._check(config)
        if kept := masked_paths(sent):
            _check_destination(config, self.open(type_name, stored), kept)
        return seal(config.model_dump(exclude_none=True), self._keyring), config

    def open(self, type_name: str, stored: dict[str, Any]) -> C:
        """The configuration with its secrets, for use.

        Raises `SecretUnreadable`, `Conflict` for an unknown type, and `BadRequest` for a configuration that an older
        release stored and this one refuses.
        """
        try:
            return self._type(type_name).model_validate(unseal(stored, self._keyring))
        except ValidationError as refusal:
            raise self._refused(type_name, refusal) from None

    def _type(self, type_name: str) -> type[C]:
        if type_name not in self._types:
            raise Conflict(f"The {self._kind} has a type that Spine does not know; correct the row, or delete it.")
        return self._types[type_name]

    def _refused(self, type_name: str, refusal: ValidationError) -> BadRequest:
        errors = field_errors(refusal, "config")
        reasons = "; ".join(f"{'.'.join(map(str, error.loc[1:]))}: {error.msg}" for error in errors)
        return BadRequest(f"The config of a {self._kind} of type {type_name} is invalid: {reasons}.", errors)


def _check_destination(config: SecretConfig, before: SecretConfig, kept: list[tuple[str | int, ...]]) -> None:
    now, then = config.destination(), before.destination()
    changed = sorted(name for name in now if now[name] != then[name])
    if not changed:
        return
    reason = f"the stored secret is kept only while {' and '.join(changed)} stay the same; send the secret again"
    errors = [FieldError(("body", "config", *path), reason) for path in kept]
    raise BadRequest(f"config.{'.'.join(map(str, kept[0]))}: {reason}.", errors)


def _plain(value: Any) -> Any:
    """A value to compare: without the cover of secrets, and equal for equal models."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def field_errors(refusal: ValidationError, field: str) -> list[FieldError]:
    """The validation errors of one field of the body, without the input, which may be a secret."""
    return [FieldError(("body", field, *error["loc"]), error["msg"]) for error in refusal.errors(include_input=False)]
