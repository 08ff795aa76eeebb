"""Finds errors that servers send with status 200 in the format of the data: as JSON, as XML, or as a line of text."""

import json
import re
from collections.abc import Mapping
from typing import Any

from spine.sources.parsers.config import ParserConfig, ParserType
from spine.sources.parsers.parse_errors import ParseError, excerpt
from spine.sources.parsers.row_counter import RowCounter

FOUND = "an error message"
_NOT_OF_A_NAME = re.compile(r"[^a-z]")
# Fields that say that there was an error, and those that say it if there is nothing but fields of messages.
_ERRORS = {"error", "errors", "errormessage", "fault", "exception"}
_MESSAGES = {"message", "detail", "note", "information"}
_BESIDE_MESSAGES = {
    *("status", "statuscode", "code", "errorcode", "errordescription", "success", "ok", "title", "type", "instance"),
    *("path", "timestamp", "requestid", "traceid", "correlationid", "documentationurl", "moreinfo", "help", "reason"),
    *("details", "description", "data", "result"),
}
_ROOTS = {*_ERRORS, "errorresponse", "exceptionreport", "serviceexceptionreport", "problem"}
_ROOT = re.compile(r"<(?:[\w.-]+:)?([A-Za-z_][\w.-]*)[\s/>]")
_SOAP_FAULT = re.compile(r"<(?:[\w.-]+:)?Body\s*>\s*<(?:[\w.-]+:)?Fault[\s>/]")
# Words, or a value of JSON.
_MESSAGE = re.compile(r"\S\s+\S|^(?:null|true|false|[0-9]+)$")
_END_OF_A_SENTENCE = (".", "!", "?")
_OF_ERRORS = re.compile(
    r"\b(?:errors?|exception|denied|forbidden|unauthori[sz]ed|not found|unavailable|invalid|failed|expired|limit)\b",
    re.IGNORECASE,
)
# Rows below a line that reads like an error: a text has few lines.
_MOST_LINES = 20


def is_error(text: str, first: int, kind: ParserType, config: ParserConfig, *, is_whole: bool) -> bool:
    """Whether a document in the expected format is about an error; `first` is where the first element of XML begins.

    What the configuration names is data.
    """
    if kind is ParserType.XML:
        return _is_error_in_xml(text, first, config)
    if not is_whole or config.records_path is not None or kind not in (ParserType.JSON, ParserType.JSONL):
        return False
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return False
    known = {*(config.columns or ()), *(config.required_columns or ())}
    if not isinstance(document, dict) or known & set(document):
        return False
    return _is_about_an_error(document, of_lines=kind is ParserType.JSONL)


def _is_about_an_error(document: Mapping[str, Any], *, of_lines: bool) -> bool:
    fields = {_NOT_OF_A_NAME.sub("", name.lower()): value for name, value in document.items()}
    if not fields.keys() <= _ERRORS | _MESSAGES | _BESIDE_MESSAGES:
        return False
    # A number may be that of a measurement.
    if any(value is True or (value and isinstance(value, str | dict | list)) for value in _of(fields, _ERRORS)):
        return True
    # A line can be a message that somebody has logged.
    return not of_lines and any(isinstance(value, str) for value in _of(fields, _MESSAGES))


def _of(fields: Mapping[str, Any], names: set[str]) -> list[Any]:
    return [value for name, value in fields.items() if name in names]


def _is_error_in_xml(text: str, first: int, config: ParserConfig) -> bool:
    root = _ROOT.match(text, first)
    if root is None:
        return False
    wanted = config.row_tag or (config.row_path or "").removeprefix("/").partition("/")[0]
    if wanted and _is_root_of_errors(wanted.rpartition(":")[2]):
        return False
    return _is_root_of_errors(root[1]) or (root[1] == "Envelope" and _SOAP_FAULT.search(text, first) is not None)


def _is_root_of_errors(name: str) -> bool:
    return _NOT_OF_A_NAME.sub("", name.lower()) in _ROOTS


def check_message(counter: RowCounter) -> None:
    """Raise `ParseError` if delimited text reads like a message: `Access denied`, `null`, or a text about an error.

    Columns that are configured show that the first line is a header.
    """
    config, names = counter.config, list(counter.columns)
    known = {*(config.columns or ()), *(config.required_columns or ())}
    if not config.has_header or not names or known & set(names):
        return
    rows = counter.rows + counter.bad_rows
    is_about_errors = any(_MESSAGE.search(name.strip()) and _OF_ERRORS.search(name) for name in names)
    if rows == 0:
        is_sentence = _MESSAGE.search(names[0]) if len(names) == 1 else names[-1].rstrip().endswith(_END_OF_A_SENTENCE)
        is_message = is_about_errors or is_sentence
    else:
        is_message = is_about_errors and len(names) == 1 and rows <= _MOST_LINES
    if is_message:
        begins = "has only" if rows == 0 else "begins with"
        line = f"it {begins} the line '{excerpt(','.join(names))}', which may be an error in place of the data"
        raise ParseError(f"{line}; name the column in required_columns if it is a header")
