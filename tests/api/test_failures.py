"""From Prefect's messages and tracebacks to messages and categories."""

from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.schemas.objects import Log, State
from spine.schemas import ErrorCategory
from spine.workflows.failures import category_of, category_of_chain, message_of


@pytest.mark.parametrize(
    ("chain", "category"),
    [
        (["ValueError"], "VALIDATION"),
        (["RuntimeError"], "PIPELINE"),
        (["KeyError"], "PIPELINE"),
        (["RuntimeError", "ConnectionRefusedError"], "NETWORK"),
        (["ValueError", "json.decoder.JSONDecodeError"], "PARSE"),
        (["etl.LoadError", "sqlalchemy.exc.OperationalError", "psycopg.OperationalError"], "DATABASE"),
        (["httpx.ConnectTimeout"], "NETWORK"),
        (["botocore.exceptions.ClientError"], "STORAGE"),
        (["FileNotFoundError"], "SOURCE"),
        (["OSError"], "STORAGE"),
        (["PermissionError"], "AUTH"),
        (["etl.AuthenticationError"], "AUTH"),
        (["pydantic_core._pydantic_core.ValidationError"], "VALIDATION"),
        (["polars.exceptions.ComputeError"], "PARSE"),
        (["flows.finra.weekly_file.BrokenFile"], "PARSE"),
        (["flows.finra.validation.TooManyRejects"], "VALIDATION"),
        (["ModuleNotFoundError"], "CONFIG"),
        (["prefect.exceptions.MissingResult"], "ORCHESTRATION"),
        (["MemoryError"], "INTERNAL"),
        (["ParameterTypeError"], "VALIDATION"),
        (["prefect.exceptions.SignatureMismatchError"], "VALIDATION"),
        (["decimal.InvalidOperation"], "VALIDATION"),
        (["prefect.exceptions.TaskRunTimeoutError"], "ORCHESTRATION"),
        (["FailedRun"], "ORCHESTRATION"),
    ],
)
def test_the_first_known_class_of_a_chain_gives_the_category(chain: list[str], category: str) -> None:
    assert category_of_chain(chain) is ErrorCategory(category)


def failed(message: str, type_: str = "FAILED", name: str | None = None) -> State:
    return State.model_validate({"type": type_, "name": name, "message": message})


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Flow run encountered an exception: ValueError: no rows", "ValueError: no rows"),
        (
            "Task run encountered an exception ValueError: line 3: bad\nline 4: bad",
            "ValueError: line 3: bad\nline 4: bad",
        ),
        ("Flow run encountered an exception: KeyError: 'x: y'", "KeyError: 'x: y'"),
        ("Flow run encountered an exception: StopIteration", "StopIteration"),
        ("Flow run encountered an exception: ValueError: ", "ValueError"),
        ("Validation of flow parameters failed with error: ValidationError: 1 error", "ValidationError: 1 error"),
        (
            "Process exited with status code: -11. It ended.",
            "Process exited with status code: -11 (SIGSEGV). It ended.",
        ),
        (
            "Process exited with status code: 137. Killed.",
            "Process exited with status code: 137 (as after SIGKILL). Killed.",
        ),
        ("Process exited with status code: 3. It ended.", "Process exited with status code: 3. It ended."),
        (
            "infrastructure exited with non-zero status code -7",
            "infrastructure exited with non-zero status code -7 (SIGBUS)",
        ),
        ("Flow run exceeded timeout of 1.0 second(s)", "Flow run exceeded timeout of 1.0 second(s)"),
    ],
)
def test_the_message_is_the_class_and_message_of_the_exception(message: str, expected: str) -> None:
    assert message_of(failed(message)) == expected


def log(message: str) -> Log:
    return Log.model_validate(
        {"name": "prefect.flow_runs", "level": 40, "message": message, "timestamp": datetime.now(UTC)}
    )


TRACEBACK = """Encountered exception during execution: LoadError('nothing loaded')
Traceback (most recent call last):
  File "/srv/etl.py", line 11, in connect
    raise ConnectionRefusedError("no route: indented\\n  text")
ConnectionRefusedError: no route: indented
  text

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/etl.py", line 29, in load
    raise LoadError("nothing loaded") from error
          ^^^^^^^^^
etl.LoadError: nothing loaded"""


def test_causes_are_read_from_the_traceback_in_the_log() -> None:
    state = failed("Flow run encountered an exception: LoadError: nothing loaded")
    assert category_of(state, [log(TRACEBACK)]) is ErrorCategory.NETWORK
    assert category_of(state, []) is ErrorCategory.PIPELINE
    of_another = failed("Flow run encountered an exception: OtherError: nothing loaded")
    assert category_of(of_another, [log(TRACEBACK)]) is ErrorCategory.PIPELINE


def test_crashes_and_timeouts_are_orchestration_failures_and_success_has_no_category() -> None:
    assert category_of(failed("Flow run process exited", "CRASHED"), []) is ErrorCategory.ORCHESTRATION
    assert category_of(failed("Flow run exceeded timeout", name="TimedOut"), []) is ErrorCategory.ORCHESTRATION
    assert category_of(failed("All states failed"), []) is ErrorCategory.UNKNOWN
    assert category_of(failed("", "COMPLETED"), []) is None


LOAD_FAILURE = """Unexpected exception encountered when trying to load flow
Traceback (most recent call last):
  File "/srv/loader.py", line 3, in load
    spec.loader.exec_module(module)
FileNotFoundError: [Errno 2] No such file or directory: 'gone.py'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/engine.py", line 9, in <module>
    raise ScriptError(script=path) from error
prefect.exceptions.ScriptError: Script at 'gone.py' encountered an exception"""


def test_a_flow_that_cannot_be_loaded_is_explained_by_the_log_of_its_attempt() -> None:
    crashed = failed("Process exited with status code: 1. Process exited with a general error.", "CRASHED")
    logs = [log(LOAD_FAILURE)]
    assert message_of(crashed, logs) == "ScriptError: Script at 'gone.py' encountered an exception"
    assert category_of(crashed, logs) is ErrorCategory.CONFIG
    earlier = [one.model_copy(update={"timestamp": one.timestamp - timedelta(minutes=5)}) for one in logs]
    assert message_of(crashed, earlier) == crashed.message
    killed = failed("Process exited with status code: -9. It was killed.", "CRASHED")
    assert "SIGKILL" in str(message_of(killed, logs))
    assert category_of(killed, logs) is ErrorCategory.ORCHESTRATION
