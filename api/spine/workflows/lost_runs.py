"""Runs that have ended without a report, because their process, their worker or their machine is gone.

Prefect leaves them RUNNING, and waits for a worker of theirs for minutes when they are cancelled. This chore of the
follower sets them to CRASHED or CANCELLED, whatever server they are on, so that the alert is raised and their slots are
free. See `signs_of_life` for how they are found.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from spine.database import SessionFactory
from spine.errors import NotFound
from spine.prefect.client import FlowRun, Prefect, SetStateStatus, State
from spine.prefect.filters import RunFilter
from spine.prefect.states import Cancelled, Crashed
from spine.workflows.after_crashes import NO_SIGN_OF_LIFE, AfterCrashes
from spine.workflows.signs_of_life import SignsOfLife

log = structlog.get_logger("spine.workflows")

SECONDS_BETWEEN_POLLS = 5.0
# A worker that lives has sent a heartbeat after Prefect has answered for so long, also when Prefect was down before.
SECONDS_OF_ANSWERS = 45.0
LONGEST_GAP_SECONDS = 20.0
# Younger runs cannot have missed enough heartbeats, and there may be many of them.
SHORTEST_SILENCE = timedelta(seconds=60)
_NOBODY_ANSWERED = "The worker of this run did not stop it, and has not been heard of since it was cancelled."


class LostRuns:
    """A chore of the follower: end what nothing runs any more, and retry what the flow wants to be retried."""

    def __init__(self) -> None:
        self._next_poll = float("-inf")
        self._answered = float("-inf")
        self._answering_since = float("-inf")
        self._signs = SignsOfLife()
        self._after_crashes = AfterCrashes()

    async def run(self, prefect: Prefect, sessions: SessionFactory) -> None:
        """Look for lost runs, if the time for the next poll has come."""
        now = asyncio.get_running_loop().time()
        if now < self._next_poll:
            return
        self._next_poll = now + SECONDS_BETWEEN_POLLS
        if now - self._answered > LONGEST_GAP_SECONDS:
            self._answering_since = now
        self._answered = float("-inf")
        is_sure = now - self._answering_since >= SECONDS_OF_ANSWERS
        await self.look(prefect, sessions, await prefect.server_time(), is_sure=is_sure)
        self._answered = now

    async def look(self, prefect: Prefect, sessions: SessionFactory, at: datetime, *, is_sure: bool) -> None:
        """Look at all runs, `at` this time of the server; unless this `is_sure`, none is set to CRASHED."""
        long_ago = at - SHORTEST_SILENCE
        in_progress = await prefect.all_runs(_in_state("PENDING", "RUNNING").started(until=long_ago))
        cancelling = await prefect.all_runs(_in_state("CANCELLING"))
        if in_progress or cancelling:
            await self._signs.read(prefect, at, [*in_progress, *cancelling])
            for run in filter(self._signs.is_cancelled_by_nobody, cancelling):
                await _end(prefect, run, Cancelled(message=_NOBODY_ANSWERED))
            if is_sure:
                await _crash(prefect, self._signs, in_progress)
        await self._after_crashes.run(prefect, sessions, at)


async def _crash(prefect: Prefect, signs: SignsOfLife, in_progress: Sequence[FlowRun]) -> None:
    lost = await signs.lost(prefect, in_progress)
    for run in in_progress:
        if why := lost.get(run.id):
            await _end(prefect, run, Crashed(message=f"{NO_SIGN_OF_LIFE} {why}"))


async def _end(prefect: Prefect, run: FlowRun, state: State[Any]) -> None:
    # Not forced: Prefect refuses if the run has ended meanwhile, and frees the slots that it held.
    try:
        result = await prefect.set_run_state(run.id, state)
    except NotFound:
        return
    if result.status is SetStateStatus.ACCEPT:
        log.warning("run_lost", run_id=str(run.id), state=state.name, reason=state.message)


def _in_state(*types: str) -> RunFilter:
    return RunFilter(runs={"state": {"type": {"any_": list(types)}}})
