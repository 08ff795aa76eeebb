"""Whether the secret key of this process is the one that the secrets in its database are encrypted with.

A process with another key can read none of them, would use up the deliveries of alerts, and would store secrets that
the others cannot read. So the database has a known text, encrypted with the key.
"""

import time
from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.database import SessionFactory, transaction
from spine.installation import lock_installation, read_installation
from spine.secrets.keyring import Keyring, SecretUnreadable
from spine.secrets.sealed import tokens_in
from spine.tables import SEALED_COLUMNS

_KNOWN_TEXT = "spine"
_SECONDS_BETWEEN_CHECKS = 60.0


class KeyMismatch(SecretUnreadable):
    """The secret key of this process is not the one of its database."""


_MISMATCH = (
    "SPINE_SECRET_KEY, or the file secret-key in SPINE_HOME where it is not set, is not the key that the secrets in "
    "this database are encrypted with. Set the key that the other processes use; if that key is lost, "
    "run `spine db adopt-key` with these settings, and enter the secrets again."
)


async def require_own_key(sessions: SessionFactory, keyring: Keyring) -> None:
    """Compare the key with the database; a database without a key claims this one.

    Raises `KeyMismatch` and `DatabaseUnavailable`.
    """
    row = await read_installation(sessions)
    if row is not None and row.key_check is not None:
        _require_any(keyring, [row.key_check])
        return
    async with transaction(sessions) as session:
        row = await lock_installation(session)
        # Another process may have been quicker, with another key. Without one the secrets show which key is right: the
        # database may be older than this check.
        _require_any(keyring, [row.key_check] if row.key_check else await _secrets(session))
        row.key_check = row.key_check or keyring.encrypt(_KNOWN_TEXT)


async def store_key_check(session: AsyncSession, keyring: Keyring) -> None:
    """Make the newest key of the keyring the key of the database."""
    (await lock_installation(session)).key_check = keyring.encrypt(_KNOWN_TEXT)


async def adopt_key(sessions: SessionFactory, keyring: Keyring) -> None:
    """The same, in a transaction of its own. Raises `DatabaseUnavailable`."""
    async with transaction(sessions) as session:
        await store_key_check(session, keyring)


def _require_any(keyring: Keyring, tokens: Sequence[str]) -> None:
    """Raise `KeyMismatch` if there are tokens, and none can be decrypted."""
    for token in tokens:
        with suppress(SecretUnreadable):
            keyring.decrypt(token)
            return
    if tokens:
        raise KeyMismatch(_MISMATCH)


async def _secrets(session: AsyncSession) -> list[str]:
    return [
        token
        for column in SEALED_COLUMNS
        for tree in await session.scalars(select(column))
        for token in tokens_in(tree)
    ]


class OwnKey:
    """The check for one process, which makes it now and then: another process may adopt another key."""

    def __init__(self, sessions: SessionFactory, keyring: Keyring) -> None:
        self._sessions = sessions
        self._keyring = keyring
        self._valid_until = float("-inf")

    async def require(self) -> None:
        """Raise `KeyMismatch` if the key of this process is not that of its database, and `DatabaseUnavailable`."""
        if time.monotonic() < self._valid_until:
            return
        await require_own_key(self._sessions, self._keyring)
        self._valid_until = time.monotonic() + _SECONDS_BETWEEN_CHECKS
