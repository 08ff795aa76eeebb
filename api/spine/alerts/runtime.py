"""The alerting of one API process, made from its settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from spine.alerts.channel_service import ChannelSecrets, find_channel, send_test_message
from spine.alerts.delivery_queue import RetryPolicy
from spine.alerts.dispatcher import Dispatcher
from spine.alerts.intake import Intake
from spine.alerts.late_runs import LateRuns
from spine.alerts.run_alerts import RunAlerts
from spine.alerts.schemas import ChannelTestResponse
from spine.alerts.transport import Sender
from spine.auth.callers import Caller
from spine.database import SessionFactory, reading
from spine.prefect.client import Prefect
from spine.secrets.key_check import OwnKey
from spine.secrets.keyring import Keyring
from spine.secrets.refs import resolve_ref
from spine.settings import Settings


class Alerting:
    """What routes and background tasks need for alerts."""

    def __init__(self, settings: Settings, sessions: SessionFactory, prefect: Prefect) -> None:
        keyring = Keyring.from_settings(settings)
        self.secrets = ChannelSecrets(keyring, settings)
        self.own_key = OwnKey(sessions, keyring)
        self.intake = Intake(sessions)
        self._sender = Sender(
            settings.allow_private_addresses, lambda ref: resolve_ref(ref, prefect.for_one_request(), settings)
        )
        retry_policy = RetryPolicy(settings.alert_attempts, timedelta(seconds=settings.alert_retry_seconds))
        self.dispatcher = Dispatcher(sessions, self.secrets.config_of, self._sender, retry_policy, self.own_key.require)
        self._sends_alerts = settings.send_alerts
        late = timedelta(seconds=settings.alert_late_seconds)
        # The follower runs these, in one process at a time.
        self.chores = [LateRuns(late, self.dispatcher.wake)]
        self.after_ingest = [RunAlerts(settings.alert_failures_in_a_row, self.dispatcher.wake)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send alerts in the background while the block runs, if SPINE_SEND_ALERTS is on."""
        try:
            if self._sends_alerts:
                async with self.dispatcher.dispatching():
                    yield
            else:
                yield
        finally:
            self._sender.close()

    async def send_test_message(self, sessions: SessionFactory, id_or_name: str, caller: Caller) -> ChannelTestResponse:
        """Send a test message to a channel. Raises `NotFound`."""
        async with reading(sessions) as session:
            channel = await find_channel(session, caller.domains, id_or_name)
        return await send_test_message(channel, self.secrets.config_of(channel), self._sender, caller)
