"""All tables of Spine; importing them fills `Base.metadata`, which the migrations are compared with."""

from typing import Any

from sqlalchemy.orm import InstrumentedAttribute

from spine.tables.alerts import Alert, AlertAcknowledgement, AlertChannel, AlertDelivery, AlertThrottle
from spine.tables.api_keys import ApiKey
from spine.tables.audit import AuditEntry
from spine.tables.base import Base
from spine.tables.cache import CacheBlob, CacheCounter, CacheEntry, CacheLease
from spine.tables.connections import DatabaseConnection
from spine.tables.domains import SeenDomain
from spine.tables.idempotency import IdempotentRequest
from spine.tables.installation import Installation
from spine.tables.retries import RetryClaim
from spine.tables.run_history import DeploymentStatistics, FollowerCursor, RunAlertClaim, RunOutcome
from spine.tables.schedules import CopiedVariables, DisabledDeployment, ScheduleNameClaim
from spine.tables.sources import Fetch, Source, SourceUse

# Every column that contains sealed secrets. A key rotation encrypts these again.
SEALED_COLUMNS: tuple[InstrumentedAttribute[Any], ...] = (AlertChannel.config, Source.config)

__all__ = [
    "SEALED_COLUMNS",
    "Alert",
    "AlertAcknowledgement",
    "AlertChannel",
    "AlertDelivery",
    "AlertThrottle",
    "ApiKey",
    "AuditEntry",
    "Base",
    "CacheBlob",
    "CacheCounter",
    "CacheEntry",
    "CacheLease",
    "CopiedVariables",
    "DatabaseConnection",
    "DeploymentStatistics",
    "DisabledDeployment",
    "Fetch",
    "FollowerCursor",
    "IdempotentRequest",
    "Installation",
    "RetryClaim",
    "RunAlertClaim",
    "RunOutcome",
    "ScheduleNameClaim",
    "SeenDomain",
    "Source",
    "SourceUse",
]
