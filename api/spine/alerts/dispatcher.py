"""The dispatcher: sends what is due, in every API process, however the deliveries came into the database.

Each channel has a lane of its own, so that a dead or slow one delays no other: only so many of its deliveries are in
flight at once, and only one while it fails. While its receiver is quick, more are taken at once than are in flight, as
a transaction costs more than a send.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Protocol

import structlog

from spine.alerts.channels.base import ChannelConfig
from spine.alerts.delivery_queue import GIVEN_BACK, Patience, Taken, due_channels, mark, take
from spine.alerts.messages import Notice, Outcome
from spine.background import repeat
from spine.database import SessionFactory
from spine.errors import SpineError
from spine.log_throttle import LogThrottle
from spine.tables.alerts import AlertChannel
from spine.tables.base import utc_now

log = structlog.get_logger("spine.alerts")

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_AFTER_AN_ERROR = 2.0
# Sends that are under way when the process stops get this long to be marked; later ones are sent again by somebody.
SECONDS_TO_STOP = 0.5
LANE_WIDTH = 8
FAILURES_TO_NARROW = 3
# A receiver that answers within this time has at most so many deliveries taken for it, in flight or waiting.
SECONDS_OF_A_QUICK_SEND = 0.25
MOST_TAKEN = 64


OpenConfig = Callable[[AlertChannel], ChannelConfig]


class Sends(Protocol):
    """Tells one receiver of one alert; never raises for what the receiver does."""

    async def send(self, config: ChannelConfig, notice: Notice, recipient: str | None) -> Outcome:
        """Try once, within a bounded time."""
        ...


class Lane:
    """What one channel has under way."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.gate = asyncio.Semaphore(LANE_WIDTH)
        self._is_quick = False

    @property
    def width(self) -> int:
        """How many deliveries are taken at the most."""
        return MOST_TAKEN if self._is_quick else LANE_WIDTH

    @property
    def is_full(self) -> bool:
        """Whether it is not worth a transaction to take more."""
        return len(self.tasks) > self.width // 2

    def note(self, seconds: float) -> None:
        """Learn from how long a send took."""
        self._is_quick = seconds <= SECONDS_OF_A_QUICK_SEND


class Dispatcher:
    """Sends deliveries for one API process."""

    def __init__(self, sessions: SessionFactory, open_config: OpenConfig, sender: Sends, patience: Patience) -> None:
        self._sessions = sessions
        self._open_config = open_config
        self._sender = sender
        self._patience = patience
        self._something_due = asyncio.Event()
        self._lanes: dict[str, Lane] = defaultdict(Lane)
        self._ended: asyncio.Queue[tuple[Taken, Outcome, datetime]] = asyncio.Queue()
        self._log_throttle = LogThrottle("dispatcher")

    def wake(self) -> None:
        """Look now for what is due; without it, it is found half a second later."""
        self._something_due.set()

    @asynccontextmanager
    async def dispatching(self) -> AsyncIterator[None]:
        """Send in the background for as long as the block lasts."""
        filling = asyncio.create_task(repeat(self._fill_lanes, self._log_throttle, SECONDS_AFTER_AN_ERROR))
        marking = asyncio.create_task(repeat(self._mark_ended, self._log_throttle, SECONDS_AFTER_AN_ERROR))
        try:
            yield
        finally:
            filling.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(SECONDS_TO_STOP):
                    await asyncio.gather(*(task for lane in self._lanes.values() for task in lane.tasks))
                    await self._ended.join()
            marking.cancel()
            await asyncio.wait([filling, marking], timeout=SECONDS_TO_STOP)

    async def _fill_lanes(self) -> None:
        self._something_due.clear()
        full = [channel_id for channel_id, lane in self._lanes.items() if lane.is_full]
        for channel in await due_channels(self._sessions, full):
            lane = self._lanes[channel.id]
            width = 1 if channel.consecutive_failures >= FAILURES_TO_NARROW else lane.width
            free = width - len(lane.tasks)
            for taken in await take(self._sessions, channel, free) if free > 0 else []:
                self._start(taken)
        with suppress(TimeoutError):
            async with asyncio.timeout(SECONDS_BETWEEN_LOOKS):
                await self._something_due.wait()

    def _start(self, taken: Taken) -> None:
        lane = self._lanes[taken.channel.id]
        task = asyncio.create_task(self._send_in(lane, taken))
        lane.tasks.add(task)

        def leave(done: asyncio.Task[None]) -> None:
            lane.tasks.discard(done)
            if not lane.is_full:
                self.wake()

        task.add_done_callback(leave)

    async def _send_in(self, lane: Lane, taken: Taken) -> None:
        async with lane.gate:
            if not taken.lease_outlasts_a_try():
                # Its receiver has become slow; whoever is next to take it sends it.
                self._ended.put_nowait((taken, GIVEN_BACK, utc_now()))
                return
            began = time.monotonic()
            await self._send(taken)
            lane.note(time.monotonic() - began)

    async def _send(self, taken: Taken) -> None:
        try:
            config = self._open_config(taken.channel)
            outcome = await self._sender.send(config, taken.notice, taken.delivery.recipient)
        except SpineError as error:
            outcome = Outcome(sent=False, reason=error.detail)
        except Exception as error:
            # A defect of ours must not lose the delivery, nor may its words, which can hold a secret, be stored.
            log.error("delivery_broke", delivery_id=taken.delivery.id, kind=type(error).__name__)
            outcome = Outcome(sent=False, reason=f"Spine could not send it ({type(error).__name__})")
        self._ended.put_nowait((taken, outcome, utc_now()))

    async def _mark_ended(self) -> None:
        """Mark all that has ended in one transaction, again and again until the database takes it."""
        ended = [await self._ended.get()]
        while not self._ended.empty():
            ended.append(self._ended.get_nowait())
        try:
            await mark(self._sessions, ended, self._patience)
        except BaseException:
            for one in ended:
                self._ended.put_nowait(one)
            raise
        finally:
            for _ in ended:
                self._ended.task_done()
