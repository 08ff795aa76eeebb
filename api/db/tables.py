"""Every table of Spine, imported for its side effect on `Base.metadata`: migrations compare against this module."""

from api.auth.tables import ApiKey
from api.db.base import Base
from api.idempotency.tables import IdempotentRequest
from api.workflows.tables import RetryClaim

__all__ = ["ApiKey", "Base", "IdempotentRequest", "RetryClaim"]
