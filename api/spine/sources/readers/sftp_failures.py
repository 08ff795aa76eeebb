"""Why a login to an SFTP server fails, in sentences that show what the two sides do not have in common."""

import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.text import on_one_line, shortened

# A server of SSH sends its greeting at once; most others, too.
SECONDS_FOR_A_GREETING = 5
_LONGEST_GREETING = 255
_LONGEST_REASON = 200
_SSH = b"SSH-"
# The first bytes of servers of other protocols; a server of SSH may send other lines of text before its greeting.
_OTHERS = {b"220": "FTP or SMTP", b"HTTP/": "HTTP", b"+OK": "POP3", b"* OK": "IMAP", b"\x15\x03": "TLS"}
# An answer to the greeting, its size, and where the names of algorithms begin in it.
_KEXINIT, _LONGEST_KEXINIT, _BEFORE_NAMES = 20, 64 * 1024, 17
_WITH_OWN_MAC = ("gcm", "poly1305")


def greeting_of(connection: socket.socket, seconds: float) -> bytes:
    """The first bytes that a server sends, which stay to be read; none if it sends nothing for so many seconds."""
    connection.settimeout(min(seconds, SECONDS_FOR_A_GREETING))
    with suppress(OSError):
        return connection.recv(_LONGEST_GREETING, socket.MSG_PEEK)
    return b""


def check_greeting(host: str, greeting: bytes) -> None:
    """Raise `FetchFailure` for the greeting of a server that is not one of SSH."""
    other = next((name for first, name in _OTHERS.items() if greeting.startswith(first)), None)
    if other is not None:
        sentence = f"{host} is not an SSH server at this port: it speaks {other} (it sent '{_shown(greeting)}')."
        raise FetchFailure(ErrorCategory.CONFIG, sentence)


@dataclass(frozen=True)
class Algorithms:
    """The names of algorithms that one side accepts."""

    key_exchanges: Sequence[str]
    host_keys: Sequence[str]
    ciphers: Sequence[str]
    macs: Sequence[str]

    def missing_in(self, other: "Algorithms") -> tuple[str, Sequence[str]] | None:
        """What the other side has nothing of that this one accepts, and what it has; None if it has enough."""
        kinds = {
            "key exchange algorithm": (self.key_exchanges, other.key_exchanges),
            "host key of a type": (self.host_keys, other.host_keys),
            "cipher": (self.ciphers, other.ciphers),
        }
        chosen = next((one for one in self.ciphers if one in other.ciphers), "")
        if not any(sign in chosen for sign in _WITH_OWN_MAC):
            kinds["MAC algorithm"] = (self.macs, other.macs)
        return next(((kind, theirs) for kind, (ours, theirs) in kinds.items() if not set(ours) & set(theirs)), None)


def offered_by(connection: socket.socket, seconds: float) -> Algorithms | None:
    """What a server offers, which it sends before anything is encrypted; None if it does not."""
    connection.settimeout(min(seconds, SECONDS_FOR_A_GREETING))
    with suppress(OSError, ValueError, IndexError):
        connection.sendall(b"SSH-2.0-Spine\r\n")
        received = b""
        while len(received) < _LONGEST_KEXINIT and (part := connection.recv(_LONGEST_KEXINIT)):
            received += part
            if (found := _algorithms_in(received)) is not None:
                return found
    return None


def _algorithms_in(received: bytes) -> Algorithms | None:
    """The algorithms in all that a server has sent; None before it is complete. Raises `ValueError` for other data."""
    greeting = re.search(rb"(?:^|\n)SSH-[^\n]*\n", received)
    packet = received[greeting.end() :] if greeting else b""
    if len(packet) < _BEFORE_NAMES or len(packet) < 4 + int.from_bytes(packet[:4]):
        return None
    content = packet[5:]
    if content[0] != _KEXINIT:
        raise ValueError("another message")
    lists, at = [], _BEFORE_NAMES
    for _ in range(6):
        length = int.from_bytes(content[at : at + 4])
        lists.append(content[at + 4 : at + 4 + length].decode("ascii").split(","))
        at += 4 + length
    return Algorithms(lists[0], lists[1], lists[2], lists[4])


def nothing_in_common(host: str, what: str, offered: Sequence[str]) -> FetchFailure:
    """The failure if a server offers only algorithms that Spine does not accept."""
    names = on_one_line(shortened(", ".join(offered), _LONGEST_REASON))
    return FetchFailure(ErrorCategory.CONFIG, f"{host} has no {what} that Spine accepts; it offers only {names}.")


def version_failure(host: str) -> FetchFailure:
    """The failure if the server has only version 1 of SSH."""
    return FetchFailure(ErrorCategory.CONFIG, f"{host} speaks a version of SSH before 2.0, which is not secure.")


def login_failure(host: str, username: str, method: str, *, was_tried: bool) -> FetchFailure:
    """The failure if a login was refused; `was_tried` is false if the server does not accept the method at all."""
    if was_tried:
        sentence = f"{host} refused the login of {username} with this {method}."
    else:
        sentence = f"{host} does not accept a {method} from {username}; it requires another method of login."
    return FetchFailure(ErrorCategory.AUTH, sentence)


def lost_failure(host: str, greeting: bytes) -> FetchFailure:
    """The failure if the connection ended during the login."""
    if greeting.startswith(_SSH):
        sentence = f"{host} closed the connection during the login."
    elif greeting:
        sentence = f"{host} closed the connection with the message '{_shown(greeting)}'."
    else:
        sentence = f"{host} closed the connection without the greeting of an SSH server."
    return FetchFailure(ErrorCategory.NETWORK, sentence, transient=True)


def _shown(greeting: bytes) -> str:
    return on_one_line(shortened(greeting.decode("ascii", "replace").strip(), _LONGEST_REASON))
