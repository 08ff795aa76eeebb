"""Every table of Spine, imported for its side effect on `Base.metadata`: migrations compare against this module."""

from spine.alerts.tables import Alert, AlertChannel, AlertDelivery, AlertThrottle
from spine.auth.tables import ApiKey
from spine.cache.tables import CacheBlob, CacheCounter, CacheEntry, CacheHold
from spine.connections.tables import DatabaseConnection
from spine.db.base import Base
from spine.idempotency.tables import IdempotentRequest
from spine.run_history.tables import DeploymentStatistics, FollowerCursor, RunAlertClaim, RunEnding
from spine.schedules.tables import ScheduleHold, ScheduleNameClaim
from spine.sources.tables import Fetch, Source, SourceUse
from spine.workflows.tables import RetryClaim

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
