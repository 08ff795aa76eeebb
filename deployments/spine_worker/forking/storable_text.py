"""Texts of exceptions and logs that Prefect cannot store: half a surrogate pair, and NUL on PostgreSQL.

A state with such a message is never stored, so the run ends as a crash without a reason, and the log record with the
traceback is lost. Here the message has the escape of such a character in its place, as Python shows it: `\\ud800`.
"""

import logging
from functools import wraps
from typing import Any

import prefect._internal.states
import prefect.states
from prefect.logging.handlers import APILogHandler


def storable(text: str) -> str:
    """The text with escapes for what cannot be stored."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def store_any_text() -> None:
    """Change Prefect in this process and in the processes that are forked from it."""
    format_exception, format_record = prefect.states.format_exception, APILogHandler.format

    @wraps(format_exception)
    def storable_exception(*args: Any, **kwargs: Any) -> str:
        return storable(format_exception(*args, **kwargs))

    def storable_record(handler: logging.Handler, record: logging.LogRecord) -> str:
        return storable(format_record(handler, record))

    for module in (prefect.states, prefect._internal.states):
        module.format_exception = storable_exception  # type: ignore[attr-defined]
    APILogHandler.format = storable_record  # type: ignore[method-assign, assignment]
