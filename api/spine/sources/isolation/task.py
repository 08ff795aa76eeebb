"""A task in a process of its own: what the process does, and how it reports."""

import json
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.sources.isolation.memory import is_memory_error, limit_memory


@dataclass(frozen=True)
class Channel:
    """The task's end of the connection to the process that started it."""

    connection: Connection

    def receive(self) -> Any:
        """The next request. Raises `EOFError` when there are no more."""
        return json.loads(self.connection.recv_bytes())

    def send(self, reply: Any) -> None:
        """Send a reply: JSON, because the other end does not trust a process that reads untrusted content."""
        self.connection.send_bytes(json.dumps({"reply": reply}).encode())


Task = Callable[[Channel], None]


def run_task(connection: Connection, memory_bytes: int) -> NoReturn:
    """Limit the memory of this process, run the task that arrives first over the connection, and exit."""
    status = 1
    try:
        limit_memory(memory_bytes)
        # Only the process that this one belongs to writes to the connection.
        task: Task = pickle.loads(connection.recv_bytes())  # noqa: S301
        status = _run(task, Channel(connection))
    except EOFError:
        # Nobody waits for the result any longer.
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _run(task: Task, channel: Channel) -> int:
    try:
        task(channel)
        end: dict[str, Any] = {"end": None}
    except EOFError:
        raise
    except Exception as error:
        end = _report(error)
    channel.connection.send_bytes(json.dumps(end).encode())
    return 0


def _report(error: Exception) -> dict[str, Any]:
    # A failure of a parser names the file.
    of_a_parser = isinstance(error, FetchFailure) and error.category is ErrorCategory.PARSE
    if is_memory_error(error) and not of_a_parser:
        return {"out_of_memory": None}
    if isinstance(error, FetchFailure):
        return {"failure": [error.category, error.sentence, error.transient]}
    traceback.print_exception(error)
    return {"error": type(error).__name__}
