"""Helpers for tests of single attempts to send."""

from datetime import UTC, datetime
from typing import Any

from spine.alerts.channels.webhook import WebhookConfig
from spine.alerts.messages import AlertMessage
from spine.errors import Unavailable
from spine.severity import Severity

from tests.support.receivers import (
    Behaviour,
    Handler,
    Receiver,
)

MESSAGE = AlertMessage(
    delivery_id="01DELIVERY",
    alert_id="01ALERT",
    severity=Severity.ERROR,
    title="Rows are missing",
    message="3 of 9",
    source="desk.load",
    created_at=datetime(2026, 1, 2, tzinfo=UTC),
)
BY_NAME = {"env:PW": "pa55 w/rd", "env:SHORT": "x7"}


async def resolve(ref: str) -> str:
    if ref not in BY_NAME:
        raise Unavailable("The secret cannot be looked up.")
    return BY_NAME[ref]


def hook(desk: Receiver, **fields: Any) -> WebhookConfig:
    return WebhookConfig.model_validate({"url": desk.url, **fields})


def refuse_with_text(text: str, status: int = 403, **headers: str) -> Behaviour:
    """Refuse with a body that can repeat parts of the request."""

    def behave(handler: Handler) -> None:
        known = {name: handler.headers.get(name, "") for name in ("Authorization", "X-Auth")}
        handler.answer(status, text.format(**known, path=handler.path).encode(), headers)

    return behave
