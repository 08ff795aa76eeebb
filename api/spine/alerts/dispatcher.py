"""The dispatcher of each API process: it sends the deliveries that are due, whichever process stored them.

Each channel has its own lane, so that a dead or slow channel does not delay the others: the number of its deliveries in
flight is limited, and only one is in flight while the channel fails. While its receiver is quick, more deliveries are
leased at once than are in flight, because a transaction costs more than a send.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Protocol

import structlog
from sqlalchemy.exc import IntegrityError

from spine.alerts.channels.base import ChannelConfig
from spine.alerts.delivery_queue import RELEASED, LeasedDelivery, RetryPolicy, due_channels, lease_due, record_outcomes
from spine.alerts.messages import AlertMessage, Outcome
from spine.background import repeat
from spine.database import SessionFactory
from spine.errors import SpineError
from spine.log_throttle import LogThrottle
from spine.measures import delivery_attempted
from spine.oddities import ODDITIES
from spine.tables.alerts import AlertChannel
from spine.tables.base import utc_now

log = structlog.get_logger("spine.alerts")

SECONDS_BETWEEN_POLLS = 0.5
SECONDS_AFTER_AN_ERROR = 2.0
# Sends in flight when the process stops get this long to be recorded; a process sends the others again later.
SECONDS_TO_STOP = 0.5
LANE_WIDTH = 8
FAILURES_TO_NARROW = 3
# A receiver that answers within this time has up to MOST_LEASED deliveries leased, in flight or waiting.
SECONDS_OF_A_QUICK_SEND = 0.25
MOST_LEASED = 64

OpenConfig = Callable[[AlertChannel], ChannelConfig]


class MessageSender(Protocol):
    """Sends a message to a receiver. A failure of the receiver is an outcome, not an exception."""

    async def send(self, config: ChannelConfig, message: AlertMessage, recipient: str | None) -> Outcome:
        """Make one attempt, within a bounded time."""
        ...


class Lane:
    """The deliveries of one channel that are leased and in flight."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.slots = asyncio.Semaphore(LANE_WIDTH)
        self._is_quick = False
        self._opened: tuple[AlertChannel, ChannelConfig] | None = None

    def config_of(self, channel: AlertChannel, open_config: OpenConfig) -> ChannelConfig:
        """The configuration of the channel, opened once while it stays as it is: that decrypts its secrets."""
        known = self._opened
        if known is None or (known[0].channel_type, known[0].config) != (channel.channel_type, channel.config):
            known = self._opened = channel, open_config(channel)
        return known[1]

    @property
    def width(self) -> int:
        """The most deliveries that may be leased at once."""
        return MOST_LEASED if self._is_quick else LANE_WIDTH

    @property
    def is_full(self) -> bool:
        """Whether leasing more is not worth a transaction yet."""
        return len(self.tasks) > self.width // 2

    def record_duration(self, seconds: float) -> None:
        """Adapt the width to how long a send took."""
        self._is_quick = seconds <= SECONDS_OF_A_QUICK_SEND


class Dispatcher:
    """Sends deliveries for one API process."""

    def __init__(
        self,
        sessions: SessionFactory,
        open_config: OpenConfig,
        sender: MessageSender,
        retry_policy: RetryPolicy,
        require_own_key: Callable[[], Awaitable[None]],
    ) -> None:
        self._sessions = sessions
        self._open_config = open_config
        self._sender = sender
        self._retry_policy = retry_policy
        self._require_own_key = require_own_key
        self._something_due = asyncio.Event()
        self._leases = True
        self._lanes: dict[str, Lane] = defaultdict(Lane)
        self._finished: asyncio.Queue[tuple[LeasedDelivery, Outcome, datetime]] = asyncio.Queue()
        self._log_throttle = LogThrottle("dispatcher")

    def wake(self) -> None:
        """Look for due deliveries now, instead of at the next poll half a second later."""
        self._something_due.set()

    def stop_leasing(self) -> None:
        """Begin no more deliveries, because this process stops; those in flight continue."""
        self._leases = False

    @asynccontextmanager
    async def dispatching(self) -> AsyncIterator[None]:
        """Send deliveries in the background while the block runs."""
        filling = asyncio.create_task(repeat(self._fill_lanes, self._log_throttle, SECONDS_AFTER_AN_ERROR))
        recording = asyncio.create_task(repeat(self._record_finished, self._log_throttle, SECONDS_AFTER_AN_ERROR))
        try:
            yield
        finally:
            filling.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(SECONDS_TO_STOP):
                    await asyncio.gather(*(task for lane in self._lanes.values() for task in lane.tasks))
                    await self._finished.join()
            recording.cancel()
            await asyncio.wait([filling, recording], timeout=SECONDS_TO_STOP)

    async def _fill_lanes(self) -> None:
        self._something_due.clear()
        # With another key each attempt would fail.
        await self._require_own_key()
        full = [channel_id for channel_id, lane in self._lanes.items() if lane.is_full]
        for channel in await due_channels(self._sessions, full) if self._leases else ():
            lane = self._lanes[channel.id]
            width = 1 if channel.consecutive_failures >= FAILURES_TO_NARROW else lane.width
            free = width - len(lane.tasks)
            for leased in await self._lease(channel, free) if free > 0 and self._leases else []:
                self._start(leased)
        with suppress(TimeoutError):
            async with asyncio.timeout(SECONDS_BETWEEN_POLLS):
                await self._something_due.wait()

    async def _lease(self, channel: AlertChannel, free: int) -> list[LeasedDelivery]:
        try:
            return await lease_due(self._sessions, channel, free)
        except SpineError:
            raise
        except Exception as error:
            # One of its rows is unreadable. The other channels do not depend on this one.
            ODDITIES.found("channel", channel.id, f"a delivery of it cannot be read ({type(error).__name__})")
            return []

    def _start(self, leased: LeasedDelivery) -> None:
        lane = self._lanes[leased.channel.id]
        task = asyncio.create_task(self._send_in(lane, leased))
        lane.tasks.add(task)

        def on_done(done: asyncio.Task[None]) -> None:
            lane.tasks.discard(done)
            if not lane.is_full:
                self.wake()

        task.add_done_callback(on_done)

    async def _send_in(self, lane: Lane, leased: LeasedDelivery) -> None:
        async with lane.slots:
            if not leased.lease_outlasts_an_attempt():
                # The receiver has become slow. The delivery is sent under a later lease.
                self._finished.put_nowait((leased, RELEASED, utc_now()))
                return
            began = time.monotonic()
            await self._send(lane, leased)
            lane.record_duration(time.monotonic() - began)

    async def _send(self, lane: Lane, leased: LeasedDelivery) -> None:
        try:
            config = lane.config_of(leased.channel, self._open_config)
            outcome = await self._sender.send(config, leased.message, leased.delivery.recipient)
        except SpineError as error:
            outcome = Outcome(sent=False, reason=error.detail, permanent=error.status_code == 400)
        except Exception as error:
            # A defect in Spine must not lose the delivery. The error's text is not stored: it can contain a secret.
            log.error("delivery_error", delivery_id=leased.delivery.id, kind=type(error).__name__)
            outcome = Outcome(sent=False, reason=f"Spine could not send it ({type(error).__name__})")
        delivery_attempted(leased.channel.channel_type, sent=outcome.sent, permanent=outcome.permanent)
        self._finished.put_nowait((leased, outcome, utc_now()))

    async def _record_finished(self) -> None:
        """Record all finished sends in one transaction, repeated until the database accepts it."""
        finished = [await self._finished.get()]
        while not self._finished.empty():
            finished.append(self._finished.get_nowait())
        try:
            await self._record(finished)
        except BaseException:
            for one in finished:
                self._finished.put_nowait(one)
            raise
        finally:
            for _ in finished:
                self._finished.task_done()

    async def _record(self, finished: list[tuple[LeasedDelivery, Outcome, datetime]]) -> None:
        """Record outcomes together, or one by one if one of them cannot be recorded: its lease then expires."""
        try:
            await record_outcomes(self._sessions, finished, self._retry_policy)
        except (SpineError, IntegrityError):
            # Another process may have raised the same alert at the same moment: this is repeated.
            raise
        except Exception as error:
            if len(finished) > 1:
                for one in finished:
                    await self._record([one])
                return
            delivery_id = finished[0][0].delivery.id
            ODDITIES.found("delivery", delivery_id, f"its result cannot be recorded ({type(error).__name__})")
