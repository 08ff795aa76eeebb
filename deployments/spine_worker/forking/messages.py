"""The messages between a worker and its fork servers: JSON over a stream socket, each with its length in front.

Each server sends `Loaded` once; an engine server that cannot prepare Prefect sends `Failed` and ends. After `Loaded` an
engine server accepts `Load`, with a socket for the new flow server, and a flow server accepts `Start`, with a socket
for the run. Both answer with `Started`, in order, and send `Exited` when a process that they forked has ended.
"""

import json
import struct
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from spine_worker.forking.files import Signatures

# Opens the gate of a run, and the answer of the run.
GO = b"g"
BEGUN = b"b"
# The hooks that a worker runs, by the names that Prefect's workers use.
HOOKS = ("cancellation", "crashed")
_LENGTH = struct.Struct("!I")


@dataclass(frozen=True)
class Load:
    """Fork a flow server for this entrypoint.

    Without `modules` the server imports the flow, for all its runs. With `modules` each run imports the flow for
    itself, and the server imports those of the modules that runs can share.
    """

    entrypoint: str
    modules: list[str] | None = None


@dataclass(frozen=True)
class Loaded:
    """A server is ready. `files` are the files that its imports depend on.

    `side_effect` says what the import of the flow does that each run has to do for itself; the server has ended then.
    `modules` are the modules of installed packages that the flow needs, and `hooks` the hooks that the flow may have
    for runs that are ended from outside.
    """

    files: Signatures
    side_effect: str | None = None
    modules: list[str] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Failed:
    """An engine server cannot prepare Prefect for runs, and ends."""

    reason: str


# An object that events of a run name: its kind, the key by which runs refer to it, its id, its name and its tags.
Related = tuple[str, str, str, str, list[str]]


@dataclass(frozen=True)
class Known:
    """What the worker knows of one run, as JSON. What is absent is requested by the run itself.

    `run` is the run in its state PENDING. `storage` is the id of the block in which the server stores results by
    default, or None, in a list that is empty if the worker does not know it.
    """

    run: dict[str, Any] | None = None
    related: list[Related] = field(default_factory=list)
    storage: list[str | None] = field(default_factory=list)


@dataclass(frozen=True)
class Start:
    """Fork a run with these environment variables; its output goes to the worker's output, or is dropped.

    The process prepares the run and begins it when it receives `GO` over the socket that comes with the message, which
    it answers with `BEGUN`. If that socket is closed, the process ends.
    """

    environment: dict[str, str]
    stream_output: bool
    # The fields of `Known`.
    known: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Started:
    """The requested server or run has this process, which leads a process group and session of its own."""

    pid: int


@dataclass(frozen=True)
class Exited:
    """A process has ended; a negative status is the number of the signal that ended it."""

    pid: int
    status: int


Message = Load | Loaded | Failed | Start | Started | Exited
_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in (Load, Loaded, Failed, Start, Started, Exited)}
M = TypeVar("M", bound=Message)


def encoded(message: Message) -> bytes:
    """The bytes of a message on the socket."""
    body = json.dumps([type(message).__name__, asdict(message)]).encode()
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Turns bytes, as they arrive, into whole messages."""

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
