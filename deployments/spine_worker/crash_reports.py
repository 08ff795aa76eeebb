"""What Prefect shows for a run whose process ended by itself: with the signal's name, or the exception in its log."""

import datetime
import logging
import re
import signal
from collections.abc import Set
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    LogFilter,
    LogFilterFlowRunId,
    LogFilterLevel,
    LogFilterTimestamp,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import LogSort
from prefect.runner._state_proposer import StateProposer
from prefect.types._datetime import now

_STATUS_CODE = re.compile(r"(?<=status code: )-?\d+")
# With 128 added, a shell reports the signal that ended a process.
_REPORTED = {128 + one: one for one in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)}
# How Prefect's engine begins the record of an exception that ends its process.
_OF_THE_PROCESS = (
    "Unexpected exception encountered when trying to load flow",
    "Engine execution exited with unexpected",
)
# An earlier attempt may have left such a record, too.
_EXCEPTION_TO_CRASH = datetime.timedelta(seconds=60)
_MOST_RECORDS = 20
_LONGEST_SENTENCE = 1_000


class CrashReports(StateProposer):
    """Proposes states as Prefect does; those of crashes say more. `begun` are the runs that can crash."""

    def __init__(self, *, client: PrefectClient, begun: Set[UUID]) -> None:
        super().__init__(client=client)
        self._begun = begun

    async def propose_crashed(self, flow_run: FlowRun, message: str) -> State | None:
        """Propose a crash with the reason. If that cannot be found, the message is Prefect's own.

        A run that has not begun does not crash: it is started in another way.
        """
        if flow_run.id not in self._begun:
            return None
        try:
            message = await self._with_reason(flow_run, message)
        except Exception as error:
            self._logger.debug("Could not find the reason of a crash: %s", error)
        return await super().propose_crashed(flow_run, message)

    async def _with_reason(self, flow_run: FlowRun, message: str) -> str:
        code = _STATUS_CODE.search(message)
        if code is None:
            return message
        if code[0] == "1":
            return " ".join(filter(None, (message, await self._exception(flow_run))))
        return _STATUS_CODE.sub(_named, message, count=1)

    async def _exception(self, flow_run: FlowRun) -> str | None:
        """The class and the message of the exception that ended the process of a run, from the run's log."""
        records = await self._client.read_logs(
            LogFilter(
                flow_run_id=LogFilterFlowRunId(any_=[flow_run.id]),
                level=LogFilterLevel(ge_=logging.ERROR),
                timestamp=LogFilterTimestamp(after_=now("UTC") - _EXCEPTION_TO_CRASH),
            ),
            limit=_MOST_RECORDS,
            sort=LogSort.TIMESTAMP_DESC,
        )
        record = next((one.message for one in records if one.message.startswith(_OF_THE_PROCESS)), "")
        _, _, last_frame = record.rpartition('\n  File "')
        after = [line for line in last_frame.splitlines()[1:] if line and not line.startswith(" ")]
        name, separator, text = (after[0] if after else "").partition(": ")
        return f"{name.rpartition('.')[2]}{separator}{text}"[:_LONGEST_SENTENCE] or None


def _named(match: re.Match[str]) -> str:
    code = int(match[0])
    try:
        number = signal.Signals(_REPORTED.get(code, -code))
    except ValueError:
        return match[0]
    return f"{code} ({'as after ' if code > 0 else ''}{number.name})"
