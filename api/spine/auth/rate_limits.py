"""Limits on requests: for each key, and for each address that sends wrong credentials. Each process has its own."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

import structlog

from spine.auth.service import hash_key
from spine.errors import TooManyRequests

# How many keys, addresses or credentials are remembered; the least recently used are forgotten first.
MOST_REMEMBERED = 10_000
SECONDS_A_CREDENTIAL_STAYS_KNOWN = 3600.0
MINUTE = 60.0

log = structlog.get_logger("spine.auth")


@dataclass
class TokenBuckets:
    """Allows `per_minute` events at once and on average, for each name."""

    per_minute: int
    clock: Callable[[], float] = time.monotonic
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def wait(self, name: str) -> float:
        """Seconds until the next event of this name is allowed; 0 if it is allowed now."""
        return max(0.0, (1 - self._tokens(name)) * MINUTE / self.per_minute)

    def take(self, name: str) -> float:
        """Count an event if it is allowed now; the result is that of `wait` before it."""
        seconds = self.wait(name)
        if seconds == 0:
            self._buckets[name] = (self._tokens(name) - 1, self.clock())
            self._buckets.move_to_end(name)
            if len(self._buckets) > MOST_REMEMBERED:
                self._buckets.popitem(last=False)
        return seconds

    def _tokens(self, name: str) -> float:
        tokens, at = self._buckets.get(name, (float(self.per_minute), self.clock()))
        return min(float(self.per_minute), tokens + (self.clock() - at) * self.per_minute / MINUTE)


class KeyLimit:
    """The limit of `SPINE_REQUESTS_PER_MINUTE` for each key; without a number there is no limit."""

    def __init__(self, per_minute: int | None) -> None:
        self._buckets = TokenBuckets(per_minute) if per_minute else None

    def count(self, caller_id: str) -> None:
        """Count a request. Raises `TooManyRequests`."""
        seconds = self._buckets.take(caller_id) if self._buckets else 0
        if self._buckets and seconds:
            raise _too_many(f"This key may send {self._buckets.per_minute} requests a minute", seconds)


class WrongCredentials:
    """The limit of `SPINE_WRONG_KEYS_PER_MINUTE` for each address.

    Beyond it, credentials from the address are refused without being checked, so that they cannot be guessed faster,
    except those that were valid within the last hour: one client with a wrong key does not lock out its neighbours.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets = TokenBuckets(per_minute, clock)
        self._clock = clock
        # SHA-256 of credentials that were valid, and when.
        self._known: OrderedDict[str, float] = OrderedDict()

    def refuse_guess(self, address: str | None, credential: str) -> None:
        """Raise `TooManyRequests` if the address may not try this credential now."""
        seconds = self._buckets.wait(_name_of(address))
        if seconds and not self._is_known(hash_key(credential)):
            raise _too_many("Too many wrong credentials came from this address", seconds)

    def was_wrong(self, address: str | None, credential: str, reason: str) -> None:
        """Count and log a credential that was refused."""
        self._known.pop(hash_key(credential), None)
        self._buckets.take(_name_of(address))
        is_limited = self._buckets.wait(_name_of(address)) > 0
        log.warning("credential_refused", reason=reason, address_is_limited=is_limited)

    def was_right(self, credential: str) -> None:
        """Remember a credential that is valid."""
        digest = hash_key(credential)
        self._known[digest] = self._clock()
        self._known.move_to_end(digest)
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)

    def _is_known(self, digest: str) -> bool:
        since = self._known.get(digest)
        return since is not None and self._clock() - since < SECONDS_A_CREDENTIAL_STAYS_KNOWN


def _name_of(address: str | None) -> str:
    """What is counted together: an address, or for IPv6 the network of 64 bits that one client has."""
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(parsed, IPv6Address):
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)


def _too_many(sentence: str, seconds: float) -> TooManyRequests:
    wait = max(1, math.ceil(seconds))
    return TooManyRequests(f"{sentence}; wait {wait} s.", retry_after_seconds=wait)
