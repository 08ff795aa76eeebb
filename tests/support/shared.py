"""Servers that all test processes of one run share: each is started once, when a test first needs it.

They belong to the process in which the run began: xdist's controller, or the only process there is. It starts them,
and stops them when the run ends, also after Ctrl-C. The other processes ask it for a server over a local socket.
"""

import os
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Protocol


class Shared(Protocol):
    """Gives what is shared by its name."""

    def get(self, name: str, folder: Path) -> Any:
        """What has this name, started in a new folder of `folder` if nobody has asked for it yet."""


# What makes a thing, given the others that it needs and a new folder.
Maker = Callable[[Shared, Path], AbstractContextManager[Any]]


class Owner:
    """Starts what is asked for, and stops it all in the end."""

    def __init__(self, makers: dict[str, Maker]) -> None:
        self._makers = makers
        self._made: dict[str, Any] = {}
        self._locks = {name: threading.Lock() for name in makers}
        self._cleanup = ExitStack()
        self._listener: Listener | None = None
        self._is_closed = False
        self._key = os.urandom(16)

    def get(self, name: str, folder: Path) -> Any:
        """What has this name. A start that failed is tried again for the next test."""
        with self._locks[name]:
            assert not self._is_closed, "the run has ended"
            if name not in self._made:
                (new := folder / f"shared-{name}").mkdir(parents=True, exist_ok=True)
                self._made[name] = self._cleanup.enter_context(self._makers[name](self, new))
            return self._made[name]

    def listen(self) -> tuple[str, bytes]:
        """Where, and with which key, other processes reach this one."""
        if self._listener is None:
            self._listener = Listener(family="AF_UNIX", authkey=self._key)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return str(self._listener.address), self._key

    def close(self) -> None:
        """Stop everything, in the reverse order of its start."""
        if self._listener is not None:
            self._listener.close()
        with ExitStack() as held:
            # What is being started has to be there before it can be stopped, after those that need it.
            for lock in reversed(self._locks.values()):
                held.enter_context(lock)
            self._is_closed = True
            self._cleanup.close()

    def _accept(self, listener: Listener) -> None:
        # Closing the listener ends the loop.
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(listener.accept(),), daemon=True).start()

    def _serve(self, asker: Connection) -> None:
        with asker, suppress(EOFError):
            name, folder = asker.recv()
            try:
                asker.send((self.get(name, folder), None))
            except BaseException:
                asker.send((None, traceback.format_exc()))
                raise


class Asker:
    """Gets what is shared from the process that owns it."""

    def __init__(self, address: str, key: bytes) -> None:
        self._address, self._key = address, key
        self._found: dict[str, Any] = {}

    def get(self, name: str, folder: Path) -> Any:
        """What has this name; fails with the owner's traceback where it could not be started."""
        if name not in self._found:
            with Client(self._address, authkey=self._key) as owner:
                owner.send((name, folder))
                found, failure = owner.recv()
            assert failure is None, failure
            self._found[name] = found
        return self._found[name]
