"""Secrets inside JSON: stored as `{"$sealed": "<token>"}`, shown as `***`."""

from collections.abc import Callable
from typing import Any

from pydantic import SecretStr

from spine.errors import BadRequest, FieldError
from spine.secrets.keyring import Keyring

MASK = "***"
SEALED = "$sealed"


def is_sealed(value: object) -> bool:
    """Whether a value is a stored secret."""
    return isinstance(value, dict) and value.keys() == {SEALED}


def seal(tree: Any, keyring: Keyring) -> Any:
    """A tree to store: each `SecretStr` in it is encrypted."""
    return _map(tree, lambda leaf: _sealed(leaf.get_secret_value(), keyring) if isinstance(leaf, SecretStr) else leaf)


def unseal(tree: Any, keyring: Keyring) -> Any:
    """A stored tree with its secrets as plain text. Raises `SecretUnreadable`."""
    return _map(tree, lambda leaf: keyring.decrypt(leaf[SEALED]) if is_sealed(leaf) else leaf)


def reseal(tree: Any, keyring: Keyring) -> Any:
    """A stored tree with its secrets encrypted anew, with the newest key. Raises `SecretUnreadable`."""
    return _map(tree, lambda leaf: _sealed(keyring.decrypt(leaf[SEALED]), keyring) if is_sealed(leaf) else leaf)


def redact(tree: Any) -> Any:
    """A stored tree as clients see it."""
    return _map(tree, lambda leaf: MASK if is_sealed(leaf) else leaf)


def count_sealed(tree: Any) -> int:
    """How many secrets a stored tree has."""
    return len(_tokens(tree))


def secret_values(tree: Any, keyring: Keyring) -> list[str]:
    """The secrets of a stored tree as plain text. Raises `SecretUnreadable`."""
    return [keyring.decrypt(token) for token in _tokens(tree)]


def keep_stored(sent: Any, stored: Any, path: tuple[str | int, ...] = ("body", "config")) -> Any:
    """What a client sent, with the stored secret in place of each `***`.

    Raises `BadRequest` for a `***` that stands for nothing, and for what looks like a stored secret.
    """
    if is_sealed(sent):
        raise _refused(path, f"an object with the key {SEALED!r} cannot be stored")
    if isinstance(sent, dict):
        of = stored if isinstance(stored, dict) and not is_sealed(stored) else {}
        return {name: keep_stored(value, of.get(name), (*path, name)) for name, value in sent.items()}
    if isinstance(sent, list):
        known = stored if isinstance(stored, list) else []
        return [
            keep_stored(value, known[index] if index < len(known) else None, (*path, index))
            for index, value in enumerate(sent)
        ]
    if sent != MASK:
        return sent
    if not is_sealed(stored):
        raise _refused(path, f"{MASK!r} keeps a stored secret, and none is stored here")
    return stored


def _refused(path: tuple[str | int, ...], reason: str) -> BadRequest:
    return BadRequest(f"{'.'.join(map(str, path[1:]))}: {reason}.", [FieldError(path, reason)])


def _sealed(text: str, keyring: Keyring) -> dict[str, str]:
    return {SEALED: keyring.encrypt(text)}


def _tokens(tree: Any) -> list[str]:
    found: list[str] = []
    _map(tree, lambda leaf: found.append(leaf[SEALED]) if is_sealed(leaf) else None)
    return found


def _map(tree: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(tree, dict) and not is_sealed(tree):
        return {name: _map(value, change) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_map(value, change) for value in tree]
    return change(tree)
