"""Connections to SFTP servers: the address is checked, then the server's key, and only then is a secret sent."""

import asyncio
import socket
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncssh

from spine.egress.fetch_failure import FetchFailure
from spine.egress.guarded_call import GuardedCall
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory
from spine.sources.readers.sftp_failures import (
    Algorithms,
    check_greeting,
    greeting_of,
    login_failure,
    lost_failure,
    nothing_in_common,
    offered_by,
    version_failure,
)

SECONDS_TO_CONNECT, SECONDS_TO_LOG_IN, SECONDS_TO_CLOSE = 15, 60, 2
# The signature algorithms of each type of key, in the order in which they are tried.
_ALGORITHMS = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
# Keeps asyncssh from reading these from the environment, from ~/.ssh or from an agent.
_NO_ENVIRONMENT: dict[str, Any] = {
    "config": None,
    "known_hosts": ([], [], []),
    "x509_trusted_certs": None,
    "x509_trusted_cert_paths": [],
    "agent_path": None,
    "gss_host": None,
}
T = TypeVar("T")


@dataclass(frozen=True)
class SftpLocation:
    """Where files are, and the login: a password, or a private key in PEM format.

    `host_key` is the type and the base64 key in OpenSSH format, or `SHA256:` and the fingerprint.
    """

    host: str
    port: int
    username: str
    host_key: str
    path: str
    password: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)

    def url(self, path: str) -> str:
        """The sftp:// URL of a file; a path relative to the user's home begins with `~`."""
        host = f"[{self.host.strip('[]')}]" if ":" in self.host else self.host
        port = "" if self.port == 22 else f":{self.port}"
        return f"sftp://{host}{port}{path if path.startswith('/') else f'/~/{path}'}"


def client_key_of(pem: str) -> asyncssh.SSHKey:
    """A private key in any PEM format without a passphrase. Raises `FetchFailure`, which shows nothing of the key."""
    try:
        key = asyncssh.import_private_key(pem.strip() + "\n")
        if key.get_algorithm() not in _ALGORITHMS:
            raise asyncssh.KeyImportError("unsupported type")
        return key
    except (asyncssh.KeyImportError, ValueError):
        sentence = "private_key_ref does not point to a PEM private key (Ed25519, ECDSA or RSA) without a passphrase."
        raise FetchFailure(ErrorCategory.CONFIG, sentence) from None


class EventLoop:
    """An event loop in its own thread, which serves the connection also while the reader's caller is busy.

    Otherwise a server that checks whether its client is alive would disconnect while a file is parsed.
    """

    def __init__(self, guarded: GuardedCall, limits: Limits) -> None:
        self._guarded = guarded
        self._limits = limits
        # Not uvloop, which connects in C, where the guard cannot see it.
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sftp", daemon=True)
        self._thread.start()

    def run(self, request: Coroutine[Any, Any, T]) -> T:
        """Run in the loop, within the guard. Raises `FetchFailure` or `TimeoutError` after the deadline."""
        running = self._guarded.run(asyncio.run_coroutine_threadsafe, request, self._loop)
        try:
            return running.result(self._limits.wait(threading.TIMEOUT_MAX))
        except BaseException:
            running.cancel()
            raise

    def start(self, request: Coroutine[Any, Any, Any]) -> None:
        """Run in the loop, within the guard, and ignore the result."""
        self._guarded.run(asyncio.run_coroutine_threadsafe, request, self._loop)

    def close(self, connection: asyncssh.SSHClientConnection | None) -> None:
        """Close the connection and end the thread."""
        # The end of the connection is not waited for longer than this.
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_end(connection), self._loop).result(SECONDS_TO_CLOSE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _end(connection: asyncssh.SSHClientConnection | None) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if connection is not None:
        connection.close()
        await connection.wait_closed()


def connect(
    location: SftpLocation, key: asyncssh.SSHKey | None, loop: EventLoop, guarded: GuardedCall, limits: Limits
) -> asyncssh.SSHClientConnection:
    """Log in to a server that has the configured host key. Raises `FetchFailure`, `asyncssh.Error` and `OSError`.

    A server shows one key for each connection, of the first type that it has. A fingerprint does not show its type, so
    the types are tried in turn.
    """
    wanted = location.host_key.partition(" ")[0]
    types = sorted(_ALGORITHMS, key=lambda kind: kind != wanted)
    shown: dict[str, str] = {}
    while True:
        host = _Client(location, key)
        # Types that were shown come last and are not left out: without any that it has, a server just disconnects.
        types.sort(key=lambda kind: kind in shown)
        connection = _socket(location, guarded, limits)
        greeting = greeting_of(connection, limits.wait(SECONDS_TO_CONNECT))
        try:
            check_greeting(location.host, greeting)
            return loop.run(_log_in(connection, location, host, types, limits))
        except asyncssh.HostKeyNotVerifiable:
            if host.key_type not in _ALGORITHMS or host.key_type in shown or wanted in _ALGORITHMS:
                raise _wrong_host_key(location, wanted, {host.key_type: host.fingerprint} | shown) from None
            shown[host.key_type] = host.fingerprint
        except asyncssh.PermissionDenied:
            limits.check_time()
            method = "key" if key is not None else "password"
            raise login_failure(location.host, location.username, method, was_tried=host.has_logged_in) from None
        except asyncssh.ProtocolNotSupported:
            raise version_failure(location.host) from None
        except (asyncssh.DisconnectError, ConnectionError):
            limits.check_time()
            # A server without a common algorithm may close the connection before asyncssh has the reason.
            missing = _missing_in(location, guarded, limits) if not host.key_type else None
            if missing is not None:
                raise nothing_in_common(location.host, *missing) from None
            raise lost_failure(location.host, greeting) from None
        except FetchFailure:
            connection.close()
            raise


def _missing_in(location: SftpLocation, guarded: GuardedCall, limits: Limits) -> tuple[str, Sequence[str]] | None:
    """What the server has nothing of that Spine accepts, and what it offers; None if that is not the reason."""
    with _socket(location, guarded, limits) as connection:
        offered = offered_by(connection, limits.wait(SECONDS_TO_CONNECT))
    defaults = asyncssh.SSHClientConnectionOptions(**_NO_ENVIRONMENT)
    named = (defaults.kex_algs, defaults.encryption_algs, defaults.mac_algs)
    key_exchanges, ciphers, macs = ([name.decode() for name in names] for names in named)
    host_keys = [algorithm for algorithms in _ALGORITHMS.values() for algorithm in algorithms]
    return Algorithms(key_exchanges, host_keys, ciphers, macs).missing_in(offered) if offered is not None else None


def _wrong_host_key(location: SftpLocation, wanted: str, shown: dict[str, str]) -> FetchFailure:
    if wanted in _ALGORITHMS and wanted not in shown:
        found = f"the server has no key of the type {wanted}"
    else:
        found = "the server has " + ", ".join(f"{kind} {fingerprint}" for kind, fingerprint in shown.items())
    sentence = f"The host key of {location.host} does not match host_key: {found}."
    return FetchFailure(ErrorCategory.AUTH, sentence)


def _socket(location: SftpLocation, guarded: GuardedCall, limits: Limits) -> socket.socket:
    address = location.host.strip("[]"), location.port
    try:
        return guarded.run(socket.create_connection, address, timeout=limits.wait(SECONDS_TO_CONNECT))
    except (OSError, UnicodeError):
        limits.check_time()
        unreachable = FetchFailure(ErrorCategory.NETWORK, f"Cannot connect to {location.host}.", transient=True)
        raise guarded.refusal(location.host) or unreachable from None


class _Client(asyncssh.SSHClient):
    """Accepts only the configured host key, and notes whether the server requested the password or key."""

    def __init__(self, location: SftpLocation, key: asyncssh.SSHKey | None) -> None:
        self._expected = location.host_key
        self._password, self._key = location.password, key
        self.key_type = self.fingerprint = ""
        self.has_logged_in = False

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Whether asyncssh may authenticate to a server with this key."""
        self.key_type, self.fingerprint = key.get_algorithm(), key.get_fingerprint()
        if self._expected.startswith("SHA256:"):
            return self.fingerprint == self._expected
        return key.export_public_key().decode().split()[:2] == self._expected.split()

    def public_key_auth_requested(self) -> asyncssh.SSHKey | None:
        """The key, once."""
        if self._key is None or self.has_logged_in:
            return None
        self.has_logged_in = True
        return self._key

    def password(self) -> str | None:
        """The password; asyncssh requests it once, also for the keyboard-interactive login."""
        self.has_logged_in = True
        return self._password


async def _log_in(
    connection: socket.socket,
    location: SftpLocation,
    host: _Client,
    types: Sequence[str],
    limits: Limits,
) -> asyncssh.SSHClientConnection:
    async with asyncio.timeout(limits.wait(SECONDS_TO_LOG_IN)):
        return await asyncssh.connect(
            sock=connection,
            client_factory=lambda: host,
            server_host_key_algs=[algorithm for kind in types for algorithm in _ALGORITHMS[kind]],
            username=location.username,
            # The client hands the key over, so that it knows whether the server wants one.
            client_keys=None,
            password=host.password if location.password is not None else None,
            preferred_auth="publickey" if location.password is None else "password,keyboard-interactive",
            **_NO_ENVIRONMENT,
        )
