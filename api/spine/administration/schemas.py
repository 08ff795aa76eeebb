"""The models of `/api/v1/me`, `/keys` and `/audit`."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from spine.actors import ActorKind
from spine.auth.callers import Scope
from spine.pagination import CursorPagination
from spine.schemas import CaseInsensitiveEnum, ShownJson, Text, UtcTime


class Me(BaseModel):
    """The caller, as this request's credential says."""

    id: str = Field(description="Stable and unique: the id of the key, or `jwt:` and the token's `sub`.")
    name: str
    kind: Literal[ActorKind.KEY, ActorKind.JWT]
    scopes: list[Scope] = Field(description="Each includes those before it: read, write, configure, admin.")
    domains: list[str] | None = Field(description="The patterns of the domains it is limited to; null: not limited.")


class KeyState(CaseInsensitiveEnum):
    """Whether a key is accepted."""

    ACTIVE = "ACTIVE"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"


class ApiKeyResponse(BaseModel):
    """An API key, without the key itself, of which Spine has only the hash."""

    id: str
    name: str
    scopes: list[str]
    domains: list[str] | None
    state: KeyState
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="Written every half minute.")


class ApiKeyCreate(BaseModel):
    """A new API key."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "finra-desk", "scopes": ["write"], "domains": ["finra.*"]}]},
    )

    name: Text = Field(min_length=1, max_length=100, description="Unique among active keys; runs show it.")
    scopes: list[Scope] = Field(default=[Scope.READ], min_length=1, max_length=len(Scope))
    domains: list[Text] | None = Field(
        default=None, min_length=1, max_length=100, description="Patterns such as `finra.*`; null: all domains."
    )
    expires_at: UtcTime | None = Field(default=None, description="Null: it does not expire.")


class ApiKeyCreated(ApiKeyResponse):
    """A new API key, with the key itself, which is shown only here."""

    key: str


class Outcome(CaseInsensitiveEnum):
    """STARTED: the change is in progress, or was interrupted, so that it may have been made. DONE: it was made."""

    STARTED = "STARTED"
    DONE = "DONE"


class AuditEntry(BaseModel):
    """One change: who made it, and what the resource was before and after it. Secrets are shown as `***`."""

    id: str
    at: datetime
    actor: str = Field(description="The name of the key, the `sub` of the token, the user of the command, or the task.")
    actor_kind: ActorKind
    action: str = Field(examples=["created"])
    resource_type: str = Field(examples=["channel"])
    resource_id: str
    resource_name: str | None
    before: ShownJson | None
    after: ShownJson | None
    request_id: str | None = Field(description="`X-Request-ID` of the request that made the change.")
    address: str | None = Field(description="The address of the client.")
    outcome: Outcome


class AuditPage(BaseModel):
    """One page of the audit trail."""

    data: list[AuditEntry]
    pagination: CursorPagination
