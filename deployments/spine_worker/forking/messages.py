"""The messages between a worker and its fork servers: JSON over a stream socket, with the length in front.

Each server says `Loaded` once. An engine server then takes `Load`, with a socket for the new flow server, and a flow
server takes `Start`, with a socket for the run. Both answer with `Started`, in order, and tell when a process that they
forked has `Exited`.
"""

import json
import struct
from dataclasses import asdict, dataclass, field
from typing import TypeVar

from spine_worker.forking.files import Signatures

# What opens the gate of a run.
GO = b"g"
# The hooks that a worker runs, as Prefect's workers name them.
HOOKS = ("cancellation", "crashed")
_LENGTH = struct.Struct("!I")


@dataclass(frozen=True)
class Load:
    """Fork a flow server that imports this entrypoint.

    With `modules`, its runs import it for themselves, and the server imports of these what runs can share.
    """

    entrypoint: str
    modules: list[str] | None = None


@dataclass(frozen=True)
class Loaded:
    """A server is ready. `files` are those that what it runs was made from.

    `refusal` says what its code does when it is imported that each run has to do for itself; it has ended then.
    `modules` are those of installed packages that its code needs, and `hooks` the hooks that its flow may have for what
    ends runs from outside.
    """

    files: Signatures
    refusal: str | None = None
    modules: list[str] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Start:
    """Fork a run with these environment variables; its output goes where the worker's goes, or nowhere.

    The run gets ready and begins when `GO` comes over the socket that is passed along; if that closes, it ends.
    """

    environment: dict[str, str]
    stream_output: bool


@dataclass(frozen=True)
class Started:
    """What was asked for has this process, the leader of a group and session of its own."""

    pid: int


@dataclass(frozen=True)
class Exited:
    """A process has ended; a negative status is the signal that ended it."""

    pid: int
    status: int


Message = Load | Loaded | Start | Started | Exited
_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in (Load, Loaded, Start, Started, Exited)}
M = TypeVar("M", bound=Message)


def encoded(message: Message) -> bytes:
    """A message as it goes over the socket."""
    body = json.dumps([type(message).__name__, asdict(message)]).encode()
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Takes bytes as they come and gives whole messages."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, received: bytes) -> list[Message]:
        """The messages that are complete with these bytes."""
        self._buffer += received
        messages = []
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                break
            kind, fields = json.loads(self._buffer[_LENGTH.size : end])
            messages.append(_KINDS[kind](**fields))
            self._buffer = self._buffer[end:]
        return messages
