"""Does the work of a request once, however often the request arrives.

A row is committed before the work starts, and the work uses the row's id as its idempotency key in Prefect. So a
repeated request needs no lock: if no answer is stored yet, it does the work again under the same id, which returns the
first result. The answer that is stored first is returned to all. This works for simultaneous requests, for a crash
between the steps, and for a client that stopped waiting.
"""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

from pydantic import BaseModel
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from spine.database import SessionFactory, transaction
from spine.errors import Conflict, SpineError, Unavailable
from spine.oddities import ODDITIES
from spine.tables.base import new_id, utc_now
from spine.tables.idempotency import IdempotentRequest

KEPT_FOR = timedelta(hours=24)

Work = Callable[[str], Awaitable[BaseModel]]


@dataclass(frozen=True)
class IdempotentCall:
    """What identifies a request: the caller, the route, the key (if any) and the hash of the body."""

    sessions: SessionFactory
    owner: str
    route: str
    key: str | None
    body_hash: str

    async def run(self, work: Work) -> bytes:
        """The answer as JSON: from `work`, or the same bytes as the first answer to this key.

        `work` receives the operation's id. Rejections (4xx) are not stored: they changed nothing, and the key can be
        used again when their reason is gone. Raises `Conflict` if the key was used with another body.
        """
        if self.key is None:
            return _to_json(await work(new_id()))
        row = await self._open(self.key)
        if row.body_hash != self.body_hash:
            raise Conflict("This Idempotency-Key was already used with another body; use a new key for a new request.")
        if row.answer is not None:
            return _checked(row)
        try:
            answer = _to_json(await work(row.id))
        except Unavailable:
            raise
        except SpineError:
            await self._forget(row.id)
            raise
        return await self._store(row.id, answer)

    async def _open(self, key: str) -> IdempotentRequest:
        key_hash = sha256("\0".join((self.owner, self.route, key)).encode()).hexdigest()
        mine = select(IdempotentRequest).where(IdempotentRequest.key_hash == key_hash)
        try:
            async with transaction(self.sessions) as session:
                expired = IdempotentRequest.created_at < utc_now() - KEPT_FOR
                await session.execute(delete(IdempotentRequest).where(expired))
                row = await session.scalar(mine)
                if row is None:
                    # A path may contain a NUL character, which PostgreSQL cannot store in a text column.
                    route = self.route.replace("\0", "%00")
                    row = IdempotentRequest(key_hash=key_hash, owner=self.owner, route=route, body_hash=self.body_hash)
                    session.add(row)
                return row
        except IntegrityError:
            # Another request with this key was faster: use its row, or make a new one if it was deleted meanwhile.
            return await self._open(key)

    async def _store(self, operation_id: str, answer: bytes) -> bytes:
        async with transaction(self.sessions) as session:
            mine = IdempotentRequest.id == operation_id
            unanswered = IdempotentRequest.answer.is_(None)
            await session.execute(update(IdempotentRequest).where(mine, unanswered).values(answer=answer))
            stored = await session.scalar(select(IdempotentRequest.answer).where(mine))
        return answer if stored is None else stored

    async def _forget(self, operation_id: str) -> None:
        async with transaction(self.sessions) as session:
            await session.execute(
                delete(IdempotentRequest).where(
                    IdempotentRequest.id == operation_id, IdempotentRequest.answer.is_(None)
                )
            )


def _checked(row: IdempotentRequest) -> bytes:
    """The stored answer. Raises `Conflict` for one that is not JSON."""
    answer = row.answer or b""
    try:
        json.loads(answer)
    except (ValueError, RecursionError):
        ODDITIES.found(IdempotentRequest.record, row.id, "its stored answer is not JSON")
        raise Conflict(
            "The answer that is stored for this Idempotency-Key cannot be read; "
            "see what the first request has done, and use a new key."
        ) from None
    return answer


def hash_body(body: bytes) -> str:
    """SHA-256 of a request body, hex; JSON that differs only in white space or in the order of keys hashes the same."""
    with suppress(ValueError, RecursionError):
        body = json.dumps(json.loads(body), sort_keys=True).encode()
    return sha256(body).hexdigest()


def _to_json(answer: BaseModel) -> bytes:
    return answer.model_dump_json().encode()
