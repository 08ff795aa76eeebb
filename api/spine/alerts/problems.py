"""The problem that an alert is about, and its state.

Alerts of one domain are about the same problem if they have the same `dedup_key`, or, without one, the same source,
title, message and severity. What people do about an alert, they do about its problem.
"""

import json
from datetime import datetime
from hashlib import sha256

from sqlalchemy import ColumnElement, and_, or_

from spine.alerts.schemas import AlertState
from spine.tables.alerts import Alert


def problem_id(key_hash: str, domain: str | None) -> str:
    """What identifies a problem, as SHA-256 in hex, from the key of its alerts for throttling.

    The domain is part of it, so that a key that is limited to domains acts on nothing else.
    """
    return sha256(json.dumps([key_hash, domain]).encode()).hexdigest()


def about_same_problem(alert: Alert) -> ColumnElement[bool]:
    """The condition for alerts about the problem of this alert, whatever their state is."""
    domain = Alert.domain.is_not_distinct_from(alert.domain)
    if alert.dedup_key is not None:
        return and_(Alert.dedup_key == alert.dedup_key, domain)
    same = [getattr(Alert, name) == getattr(alert, name) for name in ("source", "title", "message", "severity")]
    return and_(Alert.dedup_key.is_(None), *same, domain)


def state_of(alert: Alert, now: datetime) -> AlertState:
    """The state of an alert: an acknowledgement ends at `snoozed_until`."""
    if alert.resolved_at is not None:
        return AlertState.RESOLVED
    is_over = alert.snoozed_until is not None and alert.snoozed_until <= now
    return AlertState.FIRING if alert.acknowledged_by is None or is_over else AlertState.ACKNOWLEDGED


def has_state(state: AlertState, now: datetime) -> ColumnElement[bool]:
    """The condition for alerts of which `state_of` gives this state."""
    is_open = Alert.resolved_at.is_(None)
    if state is AlertState.RESOLVED:
        return Alert.resolved_at.is_not(None)
    if state is AlertState.ACKNOWLEDGED:
        lasts = or_(Alert.snoozed_until.is_(None), Alert.snoozed_until > now)
        return and_(is_open, Alert.acknowledged_by.is_not(None), lasts)
    return and_(is_open, or_(Alert.acknowledged_by.is_(None), Alert.snoozed_until <= now))
