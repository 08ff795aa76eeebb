"""The loop of a fork server: take a message, fork, and tell which runs have ended."""

import gc
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from spine_worker.forking.child import Run, become_run
from spine_worker.forking.environment_block import RunInEnvironment
from spine_worker.forking.loading import Flow
from spine_worker.forking.messages import Decoder, Exited, Load, Loaded, Message, Start, Started, encoded
from spine_worker.forking.packages import preload

Loader = Callable[[str], Flow]


class _Server:
    """A single thread that waits for messages and for the ends of its children."""

    def __init__(self, connection: socket.socket, in_environment: RunInEnvironment) -> None:
        self._connection = connection
        self._in_environment = in_environment
        self._decoder = Decoder()
        self._passed: list[int] = []
        self._selector = selectors.DefaultSelector()
        self._woken, self._wakes = socket.socketpair()
        for end in (self._woken, self._wakes):
            end.setblocking(False)

    def send(self, message: Message) -> None:
        """Tell the worker. When it is gone there is nobody left to serve."""
        try:
            self._connection.sendall(encoded(message))
        except OSError:
            os._exit(0)

    def serve(self) -> NoReturn:
        """Go on until the worker closes the connection. Runs go on without us."""
        gc.collect()
        # What is there now stays: the collector must not write to pages that children share.
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
        """Wake up when a child ends; a Ctrl-C is the worker's to handle."""
        # What was imported may have set handlers; they are for the runs.
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
        self._passed += descriptors
        for message in self._decoder.feed(data):
            self.answer(message)

    def answer(self, message: Message) -> None:
        """Do what a message asks for."""
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
        """Fork; the child has none of this server's sockets and signal handlers, and a session of its own."""
        sys.stdout.flush()
        sys.stderr.flush()
        begun, begins = os.pipe()
        pid = os.fork()
        if pid:
            os.close(begins)
            # Until it leads its group it cannot be signalled as one.
            os.read(begun, 1)
            os.close(begun)
            return pid
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            # One that was not set by Python has no name there.
            signal.signal(number, handler or signal.SIG_DFL)
        os.setsid()
        for mine in (self._selector, self._connection, self._woken, self._wakes):
            mine.close()
        # What came along with messages that are still to be answered is for others.
        for descriptor in self._passed:
            os.close(descriptor)
        self._passed.clear()
        os.close(begun)
        os.close(begins)
        return 0


class EngineServer(_Server):
    """Has imported Prefect, and forks a flow server for each entrypoint."""

    def __init__(self, connection: socket.socket, load: Loader, in_environment: RunInEnvironment) -> None:
        super().__init__(connection, in_environment)
        self._load = load

    def answer(self, message: Message) -> None:
        """Fork a flow server, which speaks over the socket that came along."""
        if not isinstance(message, Load):
            raise TypeError(f"An engine server takes no {type(message).__name__}.")
        connection = socket.socket(fileno=self._passed.pop(0))
        pid = self.fork()
        if pid == 0:
            server = FlowServer(connection, self._in_environment)
            if message.modules is None:
                server.share(self._load(message.entrypoint))
            else:
                server.share_only(message.modules)
            server.serve()
        connection.close()
        self.send(Started(pid))


class FlowServer(_Server):
    """Has imported a flow, unless each run has to, and forks a process for each run of it."""

    _flow: Flow | None

    def share(self, flow: Flow) -> None:
        """Say what was imported; end if runs cannot share it."""
        self._flow = flow
        self.send(Loaded(flow.files, flow.refusal, flow.modules, flow.hooks))
        if flow.refusal:
            os._exit(0)

    def share_only(self, modules: list[str]) -> None:
        """Let each run import the flow, and have imported what it will need of installed packages."""
        self._flow = None
        preload(modules)
        self.send(Loaded({}))

    def answer(self, message: Message) -> None:
        """Fork a run."""
        if not isinstance(message, Start):
            raise TypeError(f"A flow server takes no {type(message).__name__}.")
        gate = socket.socket(fileno=self._passed.pop(0))
        pid = self.fork()
        if pid == 0:
            self._in_environment.set(message.environment.get("PREFECT__FLOW_RUN_ID", ""))
            become_run(Run(message.environment, message.stream_output, gate), self._flow)
        gate.close()
        self.send(Started(pid))
