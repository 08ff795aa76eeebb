"""The fork servers: processes that receive messages, fork, and report which of the forked processes have ended."""

import gc
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from spine_worker.forking.child import Run, execute_run
from spine_worker.forking.environment_block import RunIdSlot
from spine_worker.forking.loading import LoadedFlow
from spine_worker.forking.messages import Decoder, Exited, Known, Load, Loaded, Message, Start, Started, encoded
from spine_worker.forking.packages import preload

Loader = Callable[[str], LoadedFlow]


class _ForkServer:
    """A single thread that waits for messages and for the ends of its children."""

    def __init__(self, connection: socket.socket, slot: RunIdSlot) -> None:
        self._connection = connection
        self._slot = slot
        self._decoder = Decoder()
        # Descriptors that were received with messages and have not been used yet.
        self._passed: list[int] = []
        self._selector = selectors.DefaultSelector()
        self._woken, self._wakes = socket.socketpair()
        for end in (self._woken, self._wakes):
            end.setblocking(False)

    def send(self, message: Message) -> None:
        """Send a message to the worker; exit if the worker is gone."""
        try:
            self._connection.sendall(encoded(message))
        except OSError:
            os._exit(0)

    def serve(self) -> NoReturn:
        """Serve until the worker closes the connection. Runs continue after that."""
        gc.collect()
        # Keep the collector from writing to memory pages that the children share.
        gc.freeze()
        self._handle_signals()
        self._selector.register(self._connection, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in self._selector.select()}
            if self._woken in ready:
                self._reap()
            if self._connection in ready:
                self._receive()

    def _handle_signals(self) -> None:
        """Wake up when a child ends, and ignore Ctrl-C, which the worker handles."""
        # The import may have set handlers, which the runs are to have.
        self._handlers = {
            signal.SIGCHLD: signal.signal(signal.SIGCHLD, lambda *_: None),
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        }
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)

    def _receive(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._connection, 1 << 16, 4)
        except OSError:
            data, descriptors = b"", []
        if not data:
            os._exit(0)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._passed += descriptors
        for message in self._decoder.feed(data):
            self.handle(message)

    def handle(self, message: Message) -> None:
        """Carry out a message."""
        raise NotImplementedError

    def _reap(self) -> None:
        try:
            while self._woken.recv(4096):
                pass
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.send(Exited(pid, os.waitstatus_to_exitcode(status)))

    def fork(self) -> int:
        """Fork. The child has none of this server's sockets and signal handlers, and a session of its own."""
        sys.stdout.flush()
        sys.stderr.flush()
        started, starts = os.pipe()
        pid = os.fork()
        if pid:
            os.close(starts)
            # Until the child leads its process group, signals to the group would miss it.
            os.read(started, 1)
            os.close(started)
            return pid
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            # The handler is None if something other than Python has set it.
            signal.signal(number, handler or signal.SIG_DFL)
        os.setsid()
        for mine in (self._selector, self._connection, self._woken, self._wakes):
            mine.close()
        # These came with messages that are not handled yet, and belong to other children.
        for descriptor in self._passed:
            os.close(descriptor)
        self._passed.clear()
        os.close(started)
        os.close(starts)
        return 0


class EngineServer(_ForkServer):
    """Has imported Prefect, and forks a flow server for each entrypoint."""

    def __init__(self, connection: socket.socket, load: Loader, slot: RunIdSlot) -> None:
        super().__init__(connection, slot)
        self._load = load

    def handle(self, message: Message) -> None:
        """Fork a flow server, which uses the socket that came with the message."""
        if not isinstance(message, Load):
            raise TypeError(f"An engine server does not accept {type(message).__name__}.")
        connection = socket.socket(fileno=self._passed.pop(0))
        pid = self.fork()
        if pid == 0:
            server = FlowServer(connection, self._slot)
            if message.modules is None:
                server.share(self._load(message.entrypoint))
            else:
                server.share_packages(message.modules)
            server.serve()
        connection.close()
        self.send(Started(pid))


class FlowServer(_ForkServer):
    """Has imported a flow, or the packages that it needs, and forks a process for each of its runs."""

    _loaded: LoadedFlow | None

    def share(self, loaded: LoadedFlow) -> None:
        """Share an imported flow with the runs, and report it; exit if runs cannot share it."""
        self._loaded = loaded
        self.send(Loaded(loaded.files, loaded.side_effect, loaded.modules, loaded.hooks))
        if loaded.side_effect:
            os._exit(0)

    def share_packages(self, modules: list[str]) -> None:
        """Share these modules of installed packages with the runs, each of which imports the flow."""
        self._loaded = None
        preload(modules)
        self.send(Loaded({}))

    def handle(self, message: Message) -> None:
        """Fork a run."""
        if not isinstance(message, Start):
            raise TypeError(f"A flow server does not accept {type(message).__name__}.")
        gate = socket.socket(fileno=self._passed.pop(0))
        pid = self.fork()
        if pid == 0:
            self._slot.write(message.environment.get("PREFECT__FLOW_RUN_ID", ""))
            known = Known(**message.known)
            execute_run(Run(message.environment, message.stream_output, gate, known), self._loaded)
        gate.close()
        self.send(Started(pid))
