"""Key rotation: all stored secrets are encrypted with a new key."""

from collections.abc import Iterable
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute

from spine.audit.trail import record
from spine.database import SessionFactory, transaction
from spine.errors import Conflict
from spine.secrets.key_check import require_own_key, store_key_check
from spine.secrets.keyring import (
    KEY_FILE,
    Keyring,
    SecretUnreadable,
    ensure_key_file,
    read_key_file,
    replace_key_file,
    rotation_lock,
    split_keys,
)
from spine.secrets.sealed import count_sealed, reseal
from spine.settings import Settings
from spine.unreadable import Unreadable

# The newest key and the previous one, with which a process that read the file just before may still encrypt.
KEYS_KEPT = 2


async def rotate(sessions: SessionFactory, settings: Settings, columns: Iterable[InstrumentedAttribute[Any]]) -> int:
    """Generate a key, encrypt every secret in the columns with it, and return the number of secrets.

    With `SPINE_SECRET_KEY` its first key is the new one, and nothing is generated. Older keys are removed from the file
    only after the commit, so that an interrupted rotation can be repeated. Raises `Conflict` if `SPINE_SECRET_KEY` has
    no old key, or during another rotation, and `SecretUnreadable`.
    """
    if settings.secret_key is not None:
        if len(split_keys(settings.secret_key.get_secret_value())) < 2:
            raise Conflict(
                "Set SPINE_SECRET_KEY to a new key and the current one, separated by a comma, wherever Spine runs; "
                "then rotate, and remove the old key afterwards."
            )
        return await _reseal_all(sessions, Keyring.from_settings(settings), columns)
    path = settings.home.absolute() / KEY_FILE
    ensure_key_file(path)
    with rotation_lock(path):
        replace_key_file(path, [Fernet.generate_key().decode(), *read_key_file(path)])
        count = await _reseal_all(sessions, Keyring.from_settings(settings), columns)
        replace_key_file(path, read_key_file(path)[:KEYS_KEPT])
    return count


async def _reseal_all(sessions: SessionFactory, keyring: Keyring, columns: Iterable[InstrumentedAttribute[Any]]) -> int:
    count = 0
    await require_own_key(sessions, keyring)
    async with transaction(sessions) as session:
        for column in columns:
            for row in await session.scalars(select(column.class_).with_for_update()):
                tree = getattr(row, column.key)
                if isinstance(tree, Unreadable):
                    # The row has named itself. What is stored there stays.
                    continue
                try:
                    setattr(row, column.key, reseal(tree, keyring))
                except SecretUnreadable as reason:
                    raise SecretUnreadable(f"The {row.record} {row.row_id()}: {reason.detail}") from None
                count += count_sealed(tree)
        await store_key_check(session, keyring)
        await record(session, "rotated", "encryption-key", "encryption-key", after={"encrypted": count})
    return count
