"""Alert channels: create, list, change, delete and test them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from spine.alerts.channels import CHANNEL_TYPES
from spine.alerts.channels.base import ChannelConfig
from spine.alerts.messages import AlertMessage, Outcome
from spine.alerts.schemas import (
    LONGEST_MESSAGE,
    AlertChannelCreate,
    AlertChannelResponse,
    AlertChannelUpdate,
    ChannelTestResponse,
    ChannelType,
)
from spine.alerts.transport import Sender
from spine.audit.trail import changing, record
from spine.auth.callers import Caller
from spine.auth.domains import Domains, hidden
from spine.egress.addresses import host_refusal
from spine.egress.own_services import endpoint_refusal
from spine.errors import BadRequest, Conflict, FieldError
from spine.json_rule import is_same
from spine.pagination import Page, PageRequest, make_page, paginate
from spine.schemas import ActionResponse
from spine.secrets.configs import SealedConfigs
from spine.secrets.keyring import Keyring
from spine.secrets.refs import ref_refusal
from spine.secrets.sealed import redact
from spine.settings import Settings
from spine.severity import Severity
from spine.tables.alerts import FAILED, PENDING, AlertChannel, AlertDelivery, AlertThrottle
from spine.tables.base import new_id, utc_now
from spine.tables.presenting import present_each, present_one


class ChannelSecrets(SealedConfigs[ChannelConfig]):
    """The configurations of channels."""

    def __init__(self, keyring: Keyring, settings: Settings) -> None:
        super().__init__("channel", CHANNEL_TYPES, keyring, lambda config: _check(config, settings))

    def config_of(self, channel: AlertChannel) -> ChannelConfig:
        """The configuration of a channel with its secrets, for sending."""
        return self.open(channel.channel_type, channel.config)


def _check(config: ChannelConfig, settings: Settings) -> None:
    for host, port in config.endpoints():
        if reason := host_refusal(host, settings.allow_private_addresses) or endpoint_refusal(host, port):
            raise BadRequest(f"The channel's host is not allowed: {reason}.", [FieldError(("body", "config"), reason)])
    for field, ref in config.refs().items():
        if reason := ref_refusal(ref, settings):
            raise BadRequest(f"config.{field}: {reason}.", [FieldError(("body", "config", field), reason)])


async def create_channel(
    session: AsyncSession, secrets: ChannelSecrets, caller: Caller, body: AlertChannelCreate
) -> ActionResponse:
    """Store a new channel.

    Raises `BadRequest` for an invalid config, `Conflict` for a name in use, and `Forbidden` for other domains.
    """
    _refuse_other_domains(caller.domains, body.domains)
    stored, config = secrets.store(body.channel_type.value, body.config, {})
    channel = AlertChannel(
        id=new_id(),
        name=body.name,
        channel_type=body.channel_type.value,
        config=stored,
        recipients=config.receivers(),
        min_severity=body.min_severity.value,
        domains=body.domains,
        enabled=body.enabled,
        throttle_minutes=body.throttle_minutes,
        created_by=caller.name,
    )
    session.add(channel)
    await _flush(session, body.name)
    await record(session, "created", "channel", channel.id, channel.name, after=_settings_of(channel))
    return ActionResponse(id=channel.id, status="created", message=f"The channel {channel.name!r} was created.")


async def list_channels(
    session: AsyncSession, domains: Domains, channel_type: ChannelType | None, enabled: bool | None, page: PageRequest
) -> Page[AlertChannelResponse]:
    """A page of channels, newest first; for a limited credential, those that serve no other domains."""
    conditions = []
    if channel_type is not None:
        conditions.append(AlertChannel.channel_type == channel_type.value)
    if enabled is not None:
        conditions.append(AlertChannel.enabled.is_(enabled))
    wanted = select(AlertChannel).where(*conditions).order_by(AlertChannel.created_at.desc(), AlertChannel.id.desc())
    if domains.is_limited:
        # SQL cannot compare globs. There are few channels.
        seen = [row for row in await session.scalars(wanted) if domains.cover(row.domains)]
        return make_page(_present_each(seen[page.offset : page.offset + page.limit]), len(seen), page)
    rows, total = await paginate(session, wanted, page)
    return make_page(_present_each([row for (row,) in rows]), total, page)


def _present_each(rows: Sequence[AlertChannel]) -> list[AlertChannelResponse]:
    return present_each(rows, _response, lambda row: row)


def present(channel: AlertChannel) -> AlertChannelResponse:
    """The response for a channel, without its secrets. Raises `Conflict` for one that cannot be read."""
    return present_one(channel, lambda: _response(channel))


def _response(channel: AlertChannel) -> AlertChannelResponse:
    return AlertChannelResponse(
        id=channel.id,
        name=channel.name,
        channel_type=ChannelType(channel.channel_type),
        config=redact(channel.config),
        min_severity=Severity(channel.min_severity),
        domains=channel.domains,
        enabled=channel.enabled,
        throttle_minutes=channel.throttle_minutes,
        last_success_at=channel.last_success_at,
        last_failure_at=channel.last_failure_at,
        consecutive_failures=channel.consecutive_failures,
        created_at=channel.created_at,
        updated_at=channel.updated_at,
        created_by=channel.created_by,
    )


async def find_channel(
    session: AsyncSession, domains: Domains, id_or_name: str, *, to_change: bool = False
) -> AlertChannel:
    """The channel with this id, or else with this name. Raises `NotFound`, also for one that serves other domains."""
    found: AlertChannel | None = None
    if id_or_name.isprintable():
        for condition in (AlertChannel.id == id_or_name.upper(), AlertChannel.name == id_or_name):
            wanted = select(AlertChannel).where(condition)
            found = found or await session.scalar(wanted.with_for_update() if to_change else wanted)
    if found is None or not domains.cover(found.domains):
        raise hidden("alert channel", id_or_name)
    return found


async def update_channel(
    session: AsyncSession, secrets: ChannelSecrets, domains: Domains, id_or_name: str, body: AlertChannelUpdate
) -> AlertChannelResponse:
    """Change the given fields.

    Raises `NotFound`, `BadRequest` for an invalid config, `Conflict` for a name in use, `Forbidden` for other domains.
    """
    channel = await find_channel(session, domains, id_or_name, to_change=True)
    sent, before = body.model_fields_set, _settings_of(channel)
    if "domains" in sent:
        _refuse_other_domains(domains, body.domains)
    for name, value in body.model_dump(mode="json", include=sent - {"config"}).items():
        setattr(channel, name, value)
    if body.config is not None and not is_same(body.config, redact(channel.config)):
        channel.config, config = secrets.store(channel.channel_type, body.config, channel.config)
        channel.recipients = config.receivers()
    if session.is_modified(channel):
        channel.updated_at = utc_now()
    await _flush(session, channel.name)
    if sent:
        await record(
            session, "updated", "channel", channel.id, channel.name, before=before, after=_settings_of(channel)
        )
    return present(channel)


def _settings_of(channel: AlertChannel) -> dict[str, Any]:
    """What people set, for the audit trail."""
    names = ("name", "channel_type", "config", "min_severity", "domains", "enabled", "throttle_minutes")
    return {name: getattr(channel, name) for name in names}


def _refuse_other_domains(domains: Domains, globs: Sequence[str] | None) -> None:
    if not domains.cover(globs):
        domains.require(None, "`domains` of the channel")


async def delete_channel(session: AsyncSession, domains: Domains, id_or_name: str) -> ActionResponse:
    """Delete a channel. Its deliveries stay readable; pending ones fail."""
    channel = await find_channel(session, domains, id_or_name, to_change=True)
    await session.delete(channel)
    await session.flush()
    unsent = (AlertDelivery.channel_id == channel.id, AlertDelivery.status == PENDING)
    closed = {"status": FAILED, "error": "the channel was deleted", "due_at": None, "next_retry_at": None}
    await session.execute(update(AlertDelivery).where(*unsent).values(**closed))
    await session.execute(delete(AlertThrottle).where(AlertThrottle.channel_id == channel.id))
    await record(session, "deleted", "channel", channel.id, channel.name, before=_settings_of(channel))
    return ActionResponse(id=channel.id, status="deleted", message=f"The channel {channel.name!r} was deleted.")


async def _flush(session: AsyncSession, name: str) -> None:
    try:
        await session.flush()
    except IntegrityError:
        raise Conflict(f"An alert channel named {name!r} already exists.") from None


async def send_test_message(
    channel: AlertChannel, config: ChannelConfig, sender: Sender, caller: Caller
) -> ChannelTestResponse:
    """Send two test messages to every receiver of a channel, now, and return what they answered.

    The second is as long as alerts can be, because a service that accepts a short message can refuse a long one.
    """
    messages = _test_messages(channel, caller)
    if config.keeps_incidents:
        messages.append(replace(messages[0], delivery_id=new_id(), resolved_keys=(str(messages[0].problem_key),)))

    async def send(recipient: str | None) -> Outcome:
        """The first failure, or else the last outcome."""
        outcome = Outcome(sent=False)
        for message in messages:
            outcome = await sender.send(config, message, recipient)
            if not outcome.sent:
                break
        return outcome

    recipients = config.receivers()
    async with changing("tested", "channel", channel.id, channel.name) as change:
        outcomes = await asyncio.gather(*(send(recipient) for recipient in recipients))
        response = _test_response(channel, config, recipients, outcomes)
        change.after = {"success": response.success}
    return response


def _test_messages(channel: AlertChannel, caller: Caller) -> list[AlertMessage]:
    short = AlertMessage(
        delivery_id=new_id(),
        alert_id=new_id(),
        severity=Severity.INFO,
        title=f"Test of the channel {channel.name}",
        message=f"{caller.name} requested this test of a channel in Spine. Nothing is wrong.",
        source="spine.test",
        created_at=utc_now(),
        problem_key=f"spine.test:{channel.id}",
    )
    title = f"Second test of the channel {channel.name}: the longest message"
    filling = "This text is as long as an alert can be, with characters of several bytes: ω, 漢, 🙂. "
    text = f"{short.message} {filling * (LONGEST_MESSAGE // len(filling))}"[:LONGEST_MESSAGE]
    return [short, replace(short, delivery_id=new_id(), alert_id=new_id(), title=title, message=text)]


def _test_response(
    channel: AlertChannel, config: ChannelConfig, recipients: list[str | None], outcomes: list[Outcome]
) -> ChannelTestResponse:
    receivers = [
        {"recipient": recipient, "sent": outcome.sent, "status": outcome.status, "reason": outcome.reason}
        for recipient, outcome in zip(recipients, outcomes, strict=True)
    ]
    failed = [outcome for outcome in outcomes if not outcome.sent]
    shown = failed[0] if failed else outcomes[0]
    message = "The test messages were sent." if not failed else f"The test failed: {shown.reason}."
    return ChannelTestResponse(
        channel_id=channel.id,
        channel_name=channel.name,
        success=not failed,
        message=" ".join(filter(None, [message, config.shortcoming()])),
        response={"status": shown.status, "reason": shown.reason, "receivers": receivers},
    )
