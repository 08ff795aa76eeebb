"""Who sent a request: its credential is checked, counted and written to the log."""

from dataclasses import dataclass

import structlog

from spine.auth.callers import Caller
from spine.auth.jwt import JwtVerifier
from spine.auth.key_uses import KeyUses
from spine.auth.rate_limits import KeyLimit, WrongCredentials
from spine.auth.service import KeyChecks
from spine.errors import Unauthorized


@dataclass(frozen=True)
class Credentials:
    """Checks the credentials of one process's requests."""

    key_checks: KeyChecks
    verifier: JwtVerifier | None
    key_uses: KeyUses
    wrong: WrongCredentials
    key_limit: KeyLimit

    async def check(self, address: str | None, api_key: str | None, bearer: str | None) -> Caller:
        """The caller with this credential, whose name all further log lines of the request have.

        Raises `Unauthorized`, `TooManyRequests`, and `Unavailable` if the credential cannot be checked.
        """
        credential = api_key or bearer
        if not credential:
            raise Unauthorized("Send an API key in X-API-Key, or an API key or JWT in Authorization: Bearer.")
        self.wrong.refuse_guess(address, credential)
        try:
            caller = await self._identify(credential, may_be_token=not api_key)
        except Unauthorized as refusal:
            self.wrong.was_wrong(address, credential, refusal.detail)
            raise
        self.wrong.was_right(credential)
        structlog.contextvars.bind_contextvars(key=caller.name, key_id=caller.id)
        self.key_limit.count(caller.id)
        return caller

    async def _identify(self, credential: str, *, may_be_token: bool) -> Caller:
        if may_be_token and credential.count(".") == 2 and self.verifier is not None:
            return await self.verifier.check(credential)
        caller = await self.key_checks.check(credential)
        self.key_uses.record(caller.id)
        return caller
