"""The way into an SFTP server: the address checked, then the server's key, and only then a password or a signature."""

import base64
import hashlib
import socket
from dataclasses import dataclass, field
from io import StringIO

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from spine.egress.fetch_failure import FetchFailure
from spine.egress.guarded_call import GuardedCall
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory

SECONDS_TO_CONNECT, SECONDS_TO_AGREE = 15, 30
# The algorithms that show a key of each type.
_ALGORITHMS = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
_ECDSA = tuple(name for name in _ALGORITHMS if name.startswith("ecdsa"))


@dataclass(frozen=True)
class SftpLocation:
    """Where files are and who reads them: with a password, or with a private key as PEM.

    `host_key` is the type and the key in base64 as OpenSSH writes them, or `SHA256:` and the fingerprint.
    """

    host: str
    port: int
    username: str
    host_key: str
    path: str
    password: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)

    def name(self, path: str) -> str:
        """A file as people name it; a path from the user's home begins with `~`."""
        host = f"[{self.host.strip('[]')}]" if ":" in self.host else self.host
        port = "" if self.port == 22 else f":{self.port}"
        return f"sftp://{host}{port}{path if path.startswith('/') else f'/~/{path}'}"


def key_of(pem: str) -> paramiko.PKey:
    """A private key from any PEM without a passphrase. Raises `FetchFailure`, which shows nothing of it."""
    content = (pem.strip() + "\n").encode()
    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in content else load_pem_private_key
    try:
        key = load(content, None)
        kind: type[paramiko.PKey]
        if isinstance(key, Ed25519PrivateKey):
            kind = paramiko.Ed25519Key
        elif isinstance(key, EllipticCurvePrivateKey):
            kind = paramiko.ECDSAKey
        elif isinstance(key, RSAPrivateKey):
            kind = paramiko.RSAKey
        else:
            raise ValueError("not of a type that servers take")
        text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        return kind.from_private_key(StringIO(text))
    except (ValueError, TypeError, UnsupportedAlgorithm, paramiko.SSHException):
        sentence = (
            "The secret that private_key_ref names is no private key (Ed25519, ECDSA or RSA) without a passphrase."
        )
        raise FetchFailure(ErrorCategory.CONFIG, sentence) from None


def connected(
    location: SftpLocation, key: paramiko.PKey | None, work: GuardedCall, limits: Limits
) -> paramiko.SFTPClient:
    """A client of the server. Raises `FetchFailure`, and what paramiko and sockets raise when a connection breaks."""
    transport = _trusted(location, work, limits)
    try:
        transport.auth_timeout = limits.wait(SECONDS_TO_AGREE)
        try:
            if key is not None:
                transport.auth_publickey(location.username, key)
            else:
                transport.auth_password(location.username, location.password or "")
        except paramiko.AuthenticationException:
            limits.check_time()
            what = "key" if key is not None else "password"
            sentence = f"The server does not let {location.username} in at {location.host} with this {what}."
            raise FetchFailure(ErrorCategory.AUTH, sentence) from None
        client = paramiko.SFTPClient.from_transport(transport)
        if client is None:
            raise paramiko.SSHException("no channel")
        channel = client.get_channel()
        if channel is not None:
            channel.settimeout(60)
        return client
    except BaseException:
        transport.close()
        raise


def _trusted(location: SftpLocation, work: GuardedCall, limits: Limits) -> paramiko.Transport:
    """A connection to a server that has shown the key that was configured."""
    offered: list[str] = []
    for algorithms in _attempts(location.host_key):
        transport = _transport(location, work, limits)
        transport.get_security_options().key_types = algorithms
        try:
            transport.start_client(timeout=limits.wait(SECONDS_TO_AGREE))
            shown = transport.get_remote_server_key()
            if _is_expected(shown, location.host_key):
                return transport
            offered.append(f"{shown.get_name()} {_fingerprint(shown.asbytes())}")
        except paramiko.SSHException as error:
            limits.check_time()
            # The server has no key of this type.
            if not isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
                transport.close()
                raise
        transport.close()
    told = f"it offers {', '.join(offered)}" if offered else "it offers none of that type"
    raise FetchFailure(ErrorCategory.AUTH, f"{location.host} does not have the key that host_key names: {told}.")


def _attempts(host_key: str) -> list[tuple[str, ...]]:
    """The algorithms to ask for, one connection each. A fingerprint does not tell its type, so all are tried."""
    kind = host_key.partition(" ")[0]
    if kind in _ALGORITHMS:
        return [_ALGORITHMS[kind]]
    return [_ALGORITHMS["ssh-ed25519"], _ECDSA, _ALGORITHMS["ssh-rsa"]]


def _transport(location: SftpLocation, work: GuardedCall, limits: Limits) -> paramiko.Transport:
    host = location.host.strip("[]")
    try:
        connection = socket.create_connection((host, location.port), timeout=limits.wait(SECONDS_TO_CONNECT))
    except (OSError, UnicodeError):
        limits.check_time()
        unreachable = FetchFailure(ErrorCategory.NETWORK, f"{location.host} cannot be connected to.", transient=True)
        raise work.refusal(location.host) or unreachable from None
    try:
        transport = paramiko.Transport(connection)
    except BaseException:
        connection.close()
        raise
    transport.banner_timeout = transport.handshake_timeout = limits.wait(SECONDS_TO_AGREE)
    return transport


def _is_expected(key: paramiko.PKey, host_key: str) -> bool:
    if host_key.startswith("SHA256:"):
        return _fingerprint(key.asbytes()) == host_key
    return host_key == f"{key.get_name()} {base64.b64encode(key.asbytes()).decode()}"


def _fingerprint(key: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
