"""Creates runs: those of one deployment that arrive while others are being created go to Prefect in one request.

A run that arrives alone is created at once, in a request of its own. Fifty triggers of one workflow at the same time
take a handful of requests and of transactions in Prefect, in place of fifty.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import FlowRun

from spine.grouped import Grouped
from spine.prefect.around import PrefectUnreadable
from spine.prefect.filters import Json

# Prefect creates them in one transaction, for which other writers wait on SQLite.
MOST_AT_ONCE = 20

CreateOne = Callable[[UUID, Json], Coroutine[Any, Any, FlowRun]]
# The runs in the order of the bodies; None for one that has to be created alone, which gives the reason.
CreateMany = Callable[[UUID, Sequence[Json]], Coroutine[Any, Any, Sequence[FlowRun | None]]]


@dataclass(frozen=True)
class _Wanted:
    """The body of a run, and the context variables of who wants it."""

    body: Json
    context: Context


class RunCreation:
    """Creates the runs of one process."""

    def __init__(self, create_one: CreateOne, create_many: CreateMany) -> None:
        self._create_one = create_one
        self._create_many = create_many
        # Those of each deployment for which runs are being created now.
        self._of_deployments: dict[UUID, Grouped[_Wanted, FlowRun]] = {}

    async def create(self, deployment_id: UUID, body: Json) -> FlowRun:
        """Create a run, or get the one that has the same idempotency key. Raises what `create_one` raises.

        A caller that stops waiting takes its run back, unless it has been sent already.
        """
        if deployment_id not in self._of_deployments:
            self._of_deployments[deployment_id] = Grouped(partial(self._create, deployment_id), MOST_AT_ONCE)
        grouped = self._of_deployments[deployment_id]
        try:
            return await grouped.do(_Wanted(body, copy_context()))
        finally:
            if grouped.is_idle:
                self._of_deployments.pop(deployment_id, None)

    async def _create(self, deployment_id: UUID, some: Sequence[_Wanted]) -> list[FlowRun | Exception]:
        runs: Sequence[FlowRun | None] = [None] * len(some)
        if len(some) > 1:
            # If what Prefect says cannot be read, one of them may be the reason.
            with suppress(PrefectUnreadable):
                runs = await self._create_many(deployment_id, [one.body for one in some])
        return [run or await self._created_alone(deployment_id, one) for run, one in zip(runs, some, strict=True)]

    async def _created_alone(self, deployment_id: UUID, wanted: _Wanted) -> FlowRun | Exception:
        creating = self._create_one(deployment_id, wanted.body)
        try:
            # It belongs to the trace of its caller.
            return await asyncio.create_task(creating, context=wanted.context)
        except Exception as error:
            return error
