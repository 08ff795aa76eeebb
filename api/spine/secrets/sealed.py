"""Secrets inside JSON: stored as `{"$sealed": "<token>"}`, shown to clients as `***`."""

from collections.abc import Callable
from typing import Any

from pydantic import SecretStr

from spine.errors import BadRequest, FieldError
from spine.secrets.keyring import Keyring

MASK = "***"
SEALED = "$sealed"


def is_sealed(value: object) -> bool:
    """Whether a value is a stored secret."""
    return isinstance(value, dict) and value.keys() == {SEALED} and isinstance(value[SEALED], str)


def seal(tree: Any, keyring: Keyring) -> Any:
    """The tree for storage, with each `SecretStr` encrypted."""
    return _map(tree, lambda leaf: _sealed(leaf.get_secret_value(), keyring) if isinstance(leaf, SecretStr) else leaf)


def unseal(tree: Any, keyring: Keyring) -> Any:
    """A stored tree with its secrets as plain text. Raises `SecretUnreadable`."""
    return _map(tree, lambda leaf: keyring.decrypt(leaf[SEALED]) if is_sealed(leaf) else leaf)


def reseal(tree: Any, keyring: Keyring) -> Any:
    """A stored tree with its secrets encrypted again, with the newest key. Raises `SecretUnreadable`."""
    return _map(tree, lambda leaf: _sealed(keyring.decrypt(leaf[SEALED]), keyring) if is_sealed(leaf) else leaf)


def redact(tree: Any) -> Any:
    """A stored tree for clients, with `***` in place of each secret."""
    return _map(tree, lambda leaf: MASK if is_sealed(leaf) else leaf)


def count_sealed(tree: Any) -> int:
    """The number of secrets in a stored tree."""
    return len(tokens_in(tree))


def secret_values(tree: Any, keyring: Keyring) -> list[str]:
    """The secrets of a stored tree as plain text. Raises `SecretUnreadable`."""
    return [keyring.decrypt(token) for token in tokens_in(tree)]


def restore_masked(sent: Any, stored: Any, path: tuple[str | int, ...] = ("body", "config")) -> Any:
    """The tree that a client sent, with the stored secret in place of each `***`.

    Raises `BadRequest` for a `***` without a stored secret, and for a value in the form of a stored secret.
    """
    if is_sealed(sent):
        raise _refused(path, f"an object with the key {SEALED!r} is not allowed")
    if isinstance(sent, dict):
        known = stored if isinstance(stored, dict) and not is_sealed(stored) else {}
        return {name: restore_masked(value, known.get(name), (*path, name)) for name, value in sent.items()}
    if isinstance(sent, list):
        stored_items = stored if isinstance(stored, list) else []
        return [
            restore_masked(value, stored_items[index] if index < len(stored_items) else None, (*path, index))
            for index, value in enumerate(sent)
        ]
    if sent != MASK:
        return sent
    if not is_sealed(stored):
        raise _refused(path, f"{MASK!r} keeps the stored secret, but no secret is stored here")
    return stored


def masked_paths(sent: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where a tree that a client sent has `***`."""
    if isinstance(sent, dict):
        return [found for name, value in sent.items() for found in masked_paths(value, (*path, name))]
    if isinstance(sent, list):
        return [found for index, value in enumerate(sent) for found in masked_paths(value, (*path, index))]
    return [path] if sent == MASK else []


def _refused(path: tuple[str | int, ...], reason: str) -> BadRequest:
    return BadRequest(f"{'.'.join(map(str, path[1:]))}: {reason}.", [FieldError(path, reason)])


def _sealed(text: str, keyring: Keyring) -> dict[str, str]:
    return {SEALED: keyring.encrypt(text)}


def tokens_in(tree: Any) -> list[str]:
    """The encrypted tokens of the secrets in a stored tree."""
    found: list[str] = []
    _map(tree, lambda leaf: found.append(leaf[SEALED]) if is_sealed(leaf) else None)
    return found


def _map(tree: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(tree, dict) and not is_sealed(tree):
        return {name: _map(value, change) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_map(value, change) for value in tree]
    return change(tree)
