"""JWT bearer tokens, verified with the keys published at `SPINE_JWKS_URL`."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx
import jwt

from spine.actors import ActorKind
from spine.auth.callers import Caller, Scope
from spine.auth.domains import Domains, parse_patterns
from spine.egress.tls import http_context
from spine.errors import BadRequest, Unauthorized, Unavailable

ALGORITHMS = ["RS256", "ES256"]
SECONDS_KEYS_STAY_FRESH = 300
SECONDS_BETWEEN_FETCHES = 10
SECONDS_TO_FETCH = 5
# The name of the caller is stored as `created_by`, `triggered_by` and `claimed_by`, in columns of this length.
LONGEST_SUBJECT = 255


@dataclass
class JwtVerifier:
    """Checks signature, algorithm, expiry, issuer and audience of a token (RFC 7519, RFC 8725)."""

    jwks_url: str
    issuer: str
    audience: str
    _keys: dict[str | None, jwt.PyJWK] = field(default_factory=dict)
    _fetched_at: float = float("-inf")
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def check(self, token: str) -> Caller:
        """The caller in the token's `sub` claim, with the scopes in its `scope` (or `scp`) claim.

        The claim `domains` limits it to domains, as `--domain` limits a key. Raises `Unauthorized` for an invalid token
        and `Unavailable` if the keys cannot be fetched.
        """
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise Unauthorized(f"The bearer token must be signed with {' or '.join(ALGORITHMS)}.")
            key = await self._key(header.get("kid"))
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                issuer=self.issuer,
                audience=self.audience,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.InvalidTokenError as error:
            raise Unauthorized(f"The bearer token is invalid: {error}.") from error
        except (OverflowError, RecursionError) as error:
            # PyJWT leaves these to its caller: a time such as 1e400, and a header of thousands of nested lists.
            raise Unauthorized("The bearer token is invalid: its header or claims cannot be read.") from error
        subject = str(claims["sub"])
        if not 1 <= len(subject) <= LONGEST_SUBJECT or not subject.isprintable():
            raise Unauthorized(
                f"The bearer token is invalid: its claim 'sub' must have 1 to {LONGEST_SUBJECT} printable characters."
            )
        scopes = frozenset(Scope(word) for word in _words(claims.get("scope", claims.get("scp"))) if word in set(Scope))
        domains = _domains(claims)
        return Caller(id=f"jwt:{subject}", name=subject, scopes=scopes, domains=domains, kind=ActorKind.JWT)

    async def _key(self, key_id: str | None) -> jwt.PyJWK:
        async with self._lock:
            age = time.monotonic() - self._fetched_at
            # An unknown key id may be a new key, so the keys are fetched again, but not for each invalid token.
            if age > SECONDS_KEYS_STAY_FRESH or (key_id not in self._keys and age > SECONDS_BETWEEN_FETCHES):
                await self._fetch()
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        try:
            return self._keys[key_id]
        except KeyError:
            raise Unauthorized("The bearer token is signed with a key that its issuer does not publish.") from None

    async def _fetch(self) -> None:
        try:
            async with httpx.AsyncClient(verify=http_context(), timeout=SECONDS_TO_FETCH) as client:
                response = (await client.get(self.jwks_url)).raise_for_status()
                keys = jwt.PyJWKSet.from_dict(response.json()).keys
        except (httpx.HTTPError, ValueError, TypeError, AttributeError, jwt.PyJWKError, jwt.PyJWKSetError) as error:
            raise Unavailable(
                "The public keys for bearer tokens are out of reach; try again in a few seconds."
            ) from error
        self._keys = {key.key_id: key for key in keys}
        self._fetched_at = time.monotonic()


def _words(claim: object) -> list[str]:
    """The words of a claim. Issuers use a string or a list; a claim of any other type has none."""
    listed = claim.split() if isinstance(claim, str) else claim
    return [str(word) for word in listed] if isinstance(listed, list) else []


def _domains(claims: Mapping[str, object]) -> Domains:
    """The domains of a token. A claim without a valid pattern allows none; without the claim, all are allowed."""
    if "domains" not in claims:
        return Domains()
    try:
        return Domains(parse_patterns(_words(claims["domains"])))
    except BadRequest as reason:
        raise Unauthorized(f"The claim `domains` of the bearer token is invalid. {reason.detail}") from None
