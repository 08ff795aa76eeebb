"""Calls of `spine up` that another process carries out, which imports what they need: `spine up` stays small.

A call and its answer are each a line of JSON over a socket.
"""

import json
import socket
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spine.up.waiting import UpError


class Calls:
    """The side of `spine up`. Make one call at a time."""

    def __init__(self, connection: socket.socket, log: Path) -> None:
        self._connection = connection
        self._lines = connection.makefile("rw")
        self._log = log

    def result(self, name: str, *arguments: str | bool) -> Any:
        """The result of the call with this name. Raises `UpError`."""
        try:
            self._lines.write(json.dumps([name, arguments]) + "\n")
            self._lines.flush()
            line = self._lines.readline()
        except OSError:
            line = ""
        if not line:
            raise UpError(f"The process for {name} has ended; see {self._log}.")
        answer = json.loads(line)
        if "error" in answer:
            raise UpError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """Let the process end."""
        # A thread that was abandoned may still wait for an answer.
        self._connection.shutdown(socket.SHUT_RDWR)


def serve_calls(connection: socket.socket, calls: Mapping[str, Callable[..., Any]]) -> None:
    """Answer calls until the other side closes the connection."""
    with connection, connection.makefile("rw") as lines:
        while line := lines.readline():
            name, arguments = json.loads(line)
            lines.write(json.dumps(_answer(calls[name], arguments)) + "\n")
            lines.flush()


def _answer(call: Callable[..., Any], arguments: list[Any]) -> dict[str, Any]:
    try:
        return {"result": call(*arguments)}
    except UpError as error:
        return {"error": str(error)}
    except Exception as error:
        # This goes to the log of the process.
        traceback.print_exc()
        return {"error": f"Unexpected {type(error).__name__}: {error}."}
