"""The alerting of one API process, put together from its settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from api.alerts.channel_service import ChannelSecrets, find_channel, try_channel
from api.alerts.dispatcher import Dispatcher
from api.alerts.lanes import Patience
from api.alerts.late_runs import LateRuns
from api.alerts.run_alerts import RunAlerts
from api.alerts.schemas import ChannelTestResponse
from api.alerts.sending import Sender
from api.auth.callers import Caller
from api.db.engine import SessionFactory, database_errors
from api.prefect.client import Prefect
from api.secrets.keyring import Keyring
from api.secrets.refs import resolve_ref
from api.settings import Settings
from api.sources.usage import is_fetch


class Alerting:
    """What routes and background work need to tell people of alerts."""

    def __init__(self, settings: Settings, sessions: SessionFactory, prefect: Prefect) -> None:
        self.secrets = ChannelSecrets(Keyring.from_settings(settings), settings.allow_private_addresses)
        self._sender = Sender(settings.allow_private_addresses, lambda ref: resolve_ref(ref, prefect.for_one_request()))
        patience = Patience(settings.alert_attempts, timedelta(seconds=settings.alert_retry_seconds))
        self.dispatcher = Dispatcher(sessions, self.secrets.of_channel, self._sender, patience)
        self._dispatches = settings.send_alerts
        late = timedelta(seconds=settings.alert_late_seconds)
        # For the follower, which leads in one process at a time.
        self.chores = [LateRuns(late, self.dispatcher.wake)]
        self.after_reading = [RunAlerts(settings.alert_failures_in_a_row, self.dispatcher.wake, is_fetch)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send alerts in the background for as long as the block lasts, if this process is to."""
        try:
            if self._dispatches:
                async with self.dispatcher.dispatching():
                    yield
            else:
                yield
        finally:
            self._sender.close()

    async def try_channel(self, sessions: SessionFactory, id_or_name: str, caller: Caller) -> ChannelTestResponse:
        """Send a test notice to a channel. Raises `NotFound`."""
        with database_errors():
            async with sessions() as session:
                channel = await find_channel(session, id_or_name)
        return await try_channel(channel, self.secrets.of_channel(channel), self._sender, caller)
