"""Every table of Spine, imported for its side effect on `Base.metadata`: migrations compare against this module."""

from api.alerts.tables import Alert, AlertChannel, AlertDelivery, AlertThrottle
from api.auth.tables import ApiKey
from api.cache.tables import CacheBlob, CacheCounter, CacheEntry, CacheHold
from api.connections.tables import DatabaseConnection
from api.db.base import Base
from api.idempotency.tables import IdempotentRequest
from api.run_history.tables import DeploymentStatistics, FollowerCursor, RunAlertClaim, RunEnding
from api.schedules.tables import ScheduleHold, ScheduleNameClaim
from api.sources.tables import Fetch, Source, SourceUse
from api.workflows.tables import RetryClaim

__all__ = [
    "Alert",
    "AlertChannel",
    "AlertDelivery",
    "AlertThrottle",
    "ApiKey",
    "Base",
    "CacheBlob",
    "CacheCounter",
    "CacheEntry",
    "CacheHold",
    "DatabaseConnection",
    "DeploymentStatistics",
    "Fetch",
    "FollowerCursor",
    "IdempotentRequest",
    "RetryClaim",
    "RunAlertClaim",
    "RunEnding",
    "ScheduleHold",
    "ScheduleNameClaim",
    "Source",
    "SourceUse",
]
