"""Encrypt all stored secrets with a new key."""

from collections.abc import Iterable
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute

from spine.database import SessionFactory, lock_out_writers
from spine.errors import Conflict
from spine.secrets.keyring import (
    KEY_FILE,
    Keyring,
    ensure_key_file,
    only_rotation,
    read_key_file,
    replace_key_file,
    split_keys,
)
from spine.secrets.sealed import count_sealed, reseal
from spine.settings import Settings
from spine.tables.alerts import AlertChannel
from spine.tables.sources import Source

# Every column that holds sealed secrets; tables with such a column are named here.
SEALED_COLUMNS: list[InstrumentedAttribute[Any]] = [AlertChannel.config, Source.config]

# The newest key and the one before it: a process that read the file just before may still encrypt with that.
KEYS_KEPT = 2


async def rotate(
    sessions: SessionFactory, settings: Settings, columns: Iterable[InstrumentedAttribute[Any]] = SEALED_COLUMNS
) -> int:
    """Make a new key in the key file and encrypt every stored secret with it; how many there are.

    With `SPINE_SECRET_KEY` the new key is the first one in it. Older keys leave the file only after the commit, so
    that this can break off anywhere and be done again. Raises `Conflict` for a `SPINE_SECRET_KEY` without an old key
    and during another rotation, and `SecretUnreadable`.
    """
    if settings.secret_key is not None:
        if len(split_keys(settings.secret_key.get_secret_value())) < 2:
            raise Conflict(
                "Set SPINE_SECRET_KEY to a new key and the present one, separated by a comma, wherever Spine runs; "
                "then rotate, and after that drop the old one."
            )
        return await _reseal_all(sessions, Keyring.from_settings(settings), columns)
    path = settings.home.absolute() / KEY_FILE
    ensure_key_file(path)
    with only_rotation(path):
        replace_key_file(path, [Fernet.generate_key().decode(), *read_key_file(path)])
        count = await _reseal_all(sessions, Keyring.from_settings(settings), columns)
        replace_key_file(path, read_key_file(path)[:KEYS_KEPT])
    return count


async def _reseal_all(sessions: SessionFactory, keyring: Keyring, columns: Iterable[InstrumentedAttribute[Any]]) -> int:
    count = 0
    async with sessions.begin() as session:
        # A row that somebody changes while it is encrypted anew would be put back as it was.
        await lock_out_writers(session)
        for column in columns:
            for row in await session.scalars(select(column.class_).with_for_update()):
                tree = getattr(row, column.key)
                setattr(row, column.key, reseal(tree, keyring))
                count += count_sealed(tree)
    return count
