"""The models of `/api/v1/sources/connections`."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from spine.egress.hosts import check_host
from spine.schemas import WHOLE, CaseInsensitiveEnum, Text
from spine.secrets.refs import check_ref


class DbType(CaseInsensitiveEnum):
    """The kind of database."""

    POSTGRESQL = "postgresql"
    MYSQL = "mysql"
    SQLITE = "sqlite"
    ORACLE = "oracle"
    DB2 = "db2"


class SslMode(CaseInsensitiveEnum):
    """`disable`: no TLS. `require`: TLS. `verify-ca`: also a trusted certificate. `verify-full`: also for this host."""

    DISABLE = "disable"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class HealthStatus(CaseInsensitiveEnum):
    """The result of the last test of a connection."""

    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    UNKNOWN = "UNKNOWN"


def _is_plain_name(text: str) -> str:
    if not text.isprintable() or "://" in text:
        raise ValueError("must be a plain name, not a URL")
    return text


Name = Annotated[Text, Field(min_length=1, max_length=200, description="Unique among connections.")]
Host = Annotated[Text, Field(min_length=1, max_length=255), AfterValidator(check_host)]
Port = Annotated[int, Field(ge=1, le=65_535, strict=True), WHOLE]
PlainText = Annotated[Text, Field(min_length=1, max_length=1_000), AfterValidator(_is_plain_name)]
Username = Annotated[Text, Field(min_length=1, max_length=255)]
Ref = Annotated[Text, Field(min_length=1, max_length=255), AfterValidator(check_ref)]
# Common names of secret fields.
_SECRETS = {"password", "passwd", "pwd", "pass", "secret", "token", "credentials", "api_key", "private_key"}


class DatabaseConnectionCreate(BaseModel):
    """A new connection. `password_ref` refers to its password, which another system stores."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [
                {
                    "name": "warehouse",
                    "db_type": "postgresql",
                    "host": "warehouse.example.com",
                    "port": 5432,
                    "database": "marts",
                    "username": "reader",
                    "password_ref": "env:SPINE_SECRET_WAREHOUSE",
                    "ssl_mode": "verify-full",
                }
            ]
        },
    )

    name: Name
    db_type: DbType
    host: Host | None = Field(default=None, description="Not for sqlite.")
    port: Port | None = Field(default=None, description="Not for sqlite.")
    database: PlainText = Field(description="The database; for oracle the service name, for sqlite the file.")
    username: Username | None = None
    password_ref: Ref | None = Field(
        default=None, description="env:NAME, file:/path, prefect:block or vault:path#field"
    )
    pool_size: Annotated[int, Field(ge=1, le=1_000, strict=True), WHOLE] = 5
    pool_overflow: Annotated[int, Field(ge=0, le=1_000, strict=True), WHOLE] = 10
    ssl_mode: SslMode = SslMode.REQUIRE
    ssl_cert_ref: Ref | None = Field(default=None, description="A certificate authority's certificate, as PEM.")
    enabled: bool = Field(default=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _no_plain_secret(cls, sent: Any) -> Any:
        for name in sent if isinstance(sent, dict) else ():
            if isinstance(name, str) and name.lower() in _SECRETS:
                raise ValueError(
                    f"{name} would be stored in plain text; send password_ref instead, a reference to the secret: "
                    "env:NAME, file:/run/secrets/x, prefect:block-name or vault:path#field"
                )
        return sent

    @model_validator(mode="after")
    def _host_and_port_unless_sqlite(self) -> Self:
        missing = [name for name in ("host", "port") if getattr(self, name) is None]
        if self.db_type is not DbType.SQLITE and missing:
            raise ValueError(f"{' and '.join(missing)} must be given for {self.db_type.value}")
        return self


class DatabaseConnectionResponse(BaseModel):
    """A connection with its health, without the references to its secrets."""

    id: str
    name: str
    db_type: DbType
    host: str | None
    port: int | None
    database: str
    username: str | None
    pool_size: int
    pool_overflow: int
    ssl_mode: SslMode
    enabled: bool
    last_health_check_at: datetime | None
    health_status: HealthStatus
    health_message: str | None
    active_connections: int = Field(description="Sessions that the responding process has open now; there is no pool.")
    idle_connections: int
    created_at: datetime
    updated_at: datetime


class ConnectionTestResponse(BaseModel):
    """The result of a test."""

    success: bool
    message: str
    latency_ms: float | None = Field(description="From the first packet to the result of the query; null on failure.")
    warnings: list[str] = Field(
        default=[], description="Sentences about a user that may do more than read tables; also part of the message."
    )
