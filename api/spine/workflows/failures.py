"""The message and the category of a failure.

Prefect stores an exception's message in the state and its traceback in the log. It stores the exception itself only as
a pickle, which is never loaded. So the category comes from the names of exception classes: that of the exception
itself first and, if it says little (`RuntimeError`), those of its causes, as the traceback lists them.
"""

import re
import signal
from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from spine.prefect.client import Log, State
from spine.prefect.states import MIXED_UP
from spine.schemas import ErrorCategory as Category

# "Flow run encountered an exception: ValueError: no rows" (a flow), "Task run encountered an exception ValueError: ..."
_STATE_MESSAGE = re.compile(
    r"^(?:(?:Flow|Task) run encountered an exception:?|Validation of flow parameters failed with error:"
    r"|Execution was interrupted by an unexpected exception:) (?P<name>[\w.]+)(?:: (?P<text>.*))?$",
    re.DOTALL,
)
# Prefect takes every TimeoutError for its own, also that of a socket.
_LATE = re.compile(r"^(?:Flow|Task) run failed due to timeout: (?P<name>\w+)\(")
# Prefect names the time-out of the run itself, which has none, when something that it called exceeded its own.
_LATE_BELOW = re.compile(r"^(?:Flow|Task) run exceeded timeout of None second\(s\)$")
# Without the name of a signal: the worker of type `spine` has written it.
_STATUS_CODE = re.compile(r"(?:(?<=status code )|(?<=status code: ))-?\d+\b(?! \()")
# With 128 added, a shell or a container reports the signal that ended a process.
_REPORTED = {128 + one: one for one in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)}
# The process ends with this status after the exception; an earlier attempt may have left such a record, too.
_MAY_BE_AN_EXCEPTION = re.compile(r"status code:? 1\b|unexpected exception")
_EXCEPTION_TO_CRASH = timedelta(seconds=60)
_CANNOT_LOAD = "Unexpected exception encountered when trying to load flow"
_ENGINE_EXITED = "Engine execution exited with unexpected exception"

# Characters of an error or reason in a list.
LONGEST_IN_A_LIST = 1_000

# The last line of each traceback in a chain: "package.module.Name: message" at the beginning of a line.
_RAISED = re.compile(r"^(?P<name>[A-Za-z_][\w.]*)(?:: |$)", re.MULTILINE)
_CHAIN = re.compile(
    r"\n\n(?:The above exception was the direct cause of the following exception"
    r"|During handling of the above exception, another exception occurred):\n\n"
)

_BY_NAME: dict[str, Category] = {
    "FileNotFoundError": Category.SOURCE,
    "PermissionError": Category.AUTH,
    "ImportError": Category.CONFIG,
    "ModuleNotFoundError": Category.CONFIG,
    "UnicodeDecodeError": Category.PARSE,
    "MemoryError": Category.INTERNAL,
    "SystemError": Category.INTERNAL,
    "RecursionError": Category.INTERNAL,
    "NotImplementedError": Category.INTERNAL,
    "AssertionError": Category.INTERNAL,
    "InvalidOperation": Category.VALIDATION,
    "OSError": Category.STORAGE,
    "IOError": Category.STORAGE,
    "IsADirectoryError": Category.STORAGE,
    "NotADirectoryError": Category.STORAGE,
    "FileExistsError": Category.STORAGE,
    "BrokenPipeError": Category.NETWORK,
    "gaierror": Category.NETWORK,
    "TimeoutError": Category.NETWORK,
    # Prefect's own, which a state's message names without their module.
    "ParameterTypeError": Category.VALIDATION,
    "ParameterBindError": Category.VALIDATION,
    "SignatureMismatchError": Category.VALIDATION,
    "ReservedArgumentError": Category.VALIDATION,
    "TaskRunTimeoutError": Category.ORCHESTRATION,
    "FlowRunTimeoutError": Category.ORCHESTRATION,
    "FailedRun": Category.ORCHESTRATION,
    "CrashedRun": Category.ORCHESTRATION,
    "CancelledRun": Category.ORCHESTRATION,
    "UnfinishedRun": Category.ORCHESTRATION,
    "MissingResult": Category.ORCHESTRATION,
}

_BY_MODULE: dict[str, Category] = {
    "sqlalchemy": Category.DATABASE,
    "psycopg": Category.DATABASE,
    "psycopg2": Category.DATABASE,
    "asyncpg": Category.DATABASE,
    "sqlite3": Category.DATABASE,
    "pymysql": Category.DATABASE,
    "oracledb": Category.DATABASE,
    "httpx": Category.NETWORK,
    "httpcore": Category.NETWORK,
    "requests": Category.NETWORK,
    "urllib3": Category.NETWORK,
    "urllib": Category.NETWORK,
    "aiohttp": Category.NETWORK,
    "socket": Category.NETWORK,
    "ssl": Category.NETWORK,
    "paramiko": Category.NETWORK,
    "asyncssh": Category.NETWORK,
    "botocore": Category.STORAGE,
    "s3fs": Category.STORAGE,
    "polars": Category.PARSE,
    "pyarrow": Category.PARSE,
    "csv": Category.PARSE,
    "pydantic_core": Category.VALIDATION,
    "prefect": Category.ORCHESTRATION,
}

# Searched in this order in the class's own name, if its module is not listed above.
_BY_WORD: list[tuple[str, Category]] = [
    (r"auth|credential|forbidden|permission|denied", Category.AUTH),
    (r"connect|network|timeout|timedout|socket|ssl|dns|unreachable", Category.NETWORK),
    (r"database|sql|deadlock", Category.DATABASE),
    (r"pars|decod|malformed|broken.*file|syntax|corrupt", Category.PARSE),
    (r"valid|reject|schema|constraint", Category.VALIDATION),
    (r"config|setting|environment", Category.CONFIG),
    (r"storage|disk|bucket|filesystem", Category.STORAGE),
    (r"notfound|missing.*source|source", Category.SOURCE),
]

# These classes say so little that the category of a known cause comes first.
_VAGUE: dict[str, Category] = {
    "ValueError": Category.VALIDATION,
    "TypeError": Category.VALIDATION,
}


def message_of(state: State | None, logs: Sequence[Log] = ()) -> str | None:
    """The sentence for a failure: class and message of its exception, else Prefect's message, with names of signals.

    `logs` are error logs of the run, newest first: of a process that ended outside of its flow, only they say why.
    """
    if (raised := _exit_reason(state, logs)) is not None:
        return raised
    if state is None or not state.message:
        return None
    if _LATE_BELOW.match(state.message):
        return "A flow or task that it called exceeded its timeout."
    match = _STATE_MESSAGE.match(state.message)
    if match is None:
        return _with_signal(state.message)
    return ": ".join(filter(None, (match["name"], match["text"])))


def _with_signal(message: str) -> str:
    """The message with the name of the signal after the status code that stands for one."""

    def named(match: re.Match[str]) -> str:
        code = int(match[0])
        try:
            number = signal.Signals(_REPORTED.get(code, -code))
        except ValueError:
            return match[0]
        return f"{code} ({'as after ' if code > 0 else ''}{number.name})"

    return _STATUS_CODE.sub(named, message, count=1)


def _exit_log(state: State | None, logs: Sequence[Log]) -> str | None:
    """The log record with the exception that ended the process of a crashed run outside of its flow, if one did."""
    if state is None or not state.is_crashed() or not _MAY_BE_AN_EXCEPTION.search(state.message or ""):
        return None
    of_this_attempt = [log.message for log in logs if state.timestamp - log.timestamp < _EXCEPTION_TO_CRASH]
    return next((message for message in of_this_attempt if message.startswith((_CANNOT_LOAD, _ENGINE_EXITED))), None)


def _exit_reason(state: State | None, logs: Sequence[Log]) -> str | None:
    """The class and message of the exception that ended the process of a crashed run, if one did."""
    found = _exit_log(state, logs)
    name, _, text = _after_frames(_CHAIN.split(found)[-1]).partition(": ") if found else ("", "", "")
    return ": ".join(filter(None, (name.rpartition(".")[2], text))) or None


def is_exception(state: State | None) -> bool:
    """Whether a state's message is about an exception, a crash or a time-out, not only a count of failed steps."""
    return state is None or re.match(r"\d+/\d+ states ", state.message or "") is None


def category_of(state: State | None, logs: Sequence[Log], task_run_id: UUID | None = None) -> Category | None:
    """The category of the failure of a run or of one of its task runs; None if the state is not a failure."""
    if state is None or state.type.value not in ("FAILED", "CRASHED"):
        return None
    if (exit_log := _exit_log(state, logs)) is not None:
        return Category.CONFIG if exit_log.startswith(_CANNOT_LOAD) else category_of_chain(_classes_in(exit_log))
    match = _STATE_MESSAGE.match(state.message or "")
    if (late := _LATE.match(state.message or "")) is not None:
        return category_of_chain([late["name"]])
    if match is None:
        is_known = state.is_crashed() or state.name in ("TimedOut", MIXED_UP)
        return Category.ORCHESTRATION if is_known else Category.UNKNOWN
    chain = _chain_from(logs, match["name"], task_run_id)
    return category_of_chain(chain or [match["name"]])


def category_of_chain(names: Iterable[str]) -> Category:
    """The category for a chain of exception classes, from the exception itself to its root cause."""
    vague = None
    for name in names:
        own = name.rpartition(".")[2]
        if (known := _known(name)) is not None:
            return known
        vague = vague or _VAGUE.get(own)
    return vague or Category.PIPELINE


def _known(name: str) -> Category | None:
    module, _, own = name.rpartition(".")
    if own in _VAGUE:
        return None
    if own in _BY_NAME:
        return _BY_NAME[own]
    if (by_module := _BY_MODULE.get(module.partition(".")[0])) is not None:
        return by_module
    return next((category for pattern, category in _BY_WORD if re.search(pattern, own, re.IGNORECASE)), None)


def _chain_from(logs: Sequence[Log], name: str, task_run_id: UUID | None) -> list[str]:
    """The classes in the newest traceback of this run or task run that ends in `name`; that class comes first."""
    for log in logs:
        if log.task_run_id != task_run_id or "Traceback (most recent call last)" not in log.message:
            continue
        chain = _classes_in(log.message)
        if chain and chain[0].rpartition(".")[2] == name.rpartition(".")[2]:
            return chain
    return []


def _classes_in(record: str) -> list[str]:
    """The classes in a log record's traceback, from the exception itself to its root cause."""
    blocks = _CHAIN.split(record)
    return [names[-1] for block in reversed(blocks) if (names := _RAISED.findall(_after_frames(block)))]


def _after_frames(block: str) -> str:
    """The line of a traceback with the exception: the first line without indentation after the last frame."""
    frames, _, rest = block.rpartition('\n  File "')
    if not frames:
        return ""
    return next((line for line in rest.splitlines()[1:] if line and not line.startswith(" ")), "")
