"""Settings of the API and of `spine up`, read from `SPINE_*` environment variables.

What Prefect itself reads (`PREFECT_API_URL`, `PREFECT_UI_URL`, ...) stays with Prefect and is not repeated here.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from cryptography.fernet import Fernet
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url


class Settings(BaseSettings):
    """One field for each `SPINE_*` variable; the README lists them."""

    # Errors would show what was given, and some of it is secret.
    model_config = SettingsConfigDict(
        env_prefix="SPINE_", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    home: Path = Field(default=Path(".spine"), description="Folder for state: databases, keys, results, logs.")
    database_url: SecretStr | None = Field(
        default=None, description="SQLAlchemy URL of Spine's own tables; a SQLite file below the home by default."
    )
    api_key: SecretStr | None = Field(
        default=None, min_length=16, description="The admin key, instead of a generated one; at least 16 characters."
    )
    work_pool: str = Field(default="spine", description="The Prefect work pool whose workers `/health/ready` reports.")
    log_level: str = Field(default="INFO", description="Lowest level that the JSON log shows.")
    max_body_bytes: int = Field(default=1024 * 1024, ge=1, description="Largest accepted request body, in bytes.")
    prefect_deadline_seconds: float = Field(
        default=8.0, gt=0, lt=10, description="How long one request may wait for Prefect before it answers 503."
    )
    follow_runs: bool = Field(
        default=True, description="Whether this process takes part in following runs; one of several is enough."
    )
    secret_key: SecretStr | None = Field(
        default=None, description="Fernet keys for stored secrets, newest first, separated by commas."
    )
    send_alerts: bool = Field(default=True, description="Whether this process sends alerts; one of several is enough.")
    alert_attempts: int = Field(default=15, ge=1, description="How often an alert is tried before it is given up.")
    alert_retry_seconds: float = Field(
        default=1.0, gt=0, description="The wait before the second try; it doubles up to half an hour."
    )
    alert_late_seconds: float = Field(
        default=300.0, gt=0, description="How late a run may begin before that raises an alert."
    )
    alert_failures_in_a_row: int = Field(
        default=3, ge=1, description="As many failures in a row of one schedule raise an alert of their own."
    )
    alert_retention_days: int = Field(default=90, ge=1, description="Older alerts are what `spine.prune` deletes.")
    allow_private_addresses: bool = Field(
        default=False,
        description="Whether alerts, sources and connections may reach loopback and private addresses; link-local "
        "ones never are allowed.",
    )
    file_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="Folders whose files sources may read, separated by colons; none by default."
    )
    cache_url: str | None = Field(
        default=None, description="Where fetched content is kept, any fsspec URL; a folder below the home by default."
    )
    cache_max_bytes: int | None = Field(
        default=None, ge=1, description="The cache drops what was used longest ago beyond so many bytes."
    )
    jwks_url: str | None = Field(default=None, description="Where the public keys of JWT bearer tokens are.")
    jwt_issuer: str | None = Field(default=None, description="The `iss` that a bearer token must carry.")
    jwt_audience: str | None = Field(default=None, description="The `aud` that a bearer token must carry.")

    @field_validator("file_roots", mode="before")
    @classmethod
    def _folders_from_a_line(cls, given: Any) -> Any:
        return [part for part in given.split(os.pathsep) if part] if isinstance(given, str) else given

    @field_validator("secret_key")
    @classmethod
    def _keys_are_fernet_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        for key in keys.get_secret_value().split(",") if keys else []:
            try:
                Fernet(key.strip())
            except ValueError:
                raise ValueError(
                    "each key is 32 random bytes in URL-safe base64, as `Fernet.generate_key()` makes it"
                ) from None
        return keys

    @model_validator(mode="after")
    def _jwt_is_configured_whole(self) -> "Settings":
        given = [self.jwks_url, self.jwt_issuer, self.jwt_audience]
        if any(given) and not all(given):
            raise ValueError("SPINE_JWKS_URL, SPINE_JWT_ISSUER and SPINE_JWT_AUDIENCE belong together: set all or none")
        return self

    @property
    def sqlalchemy_url(self) -> URL:
        """The database URL with the async driver that Spine uses for its dialect.

        Raises `ValueError` for a dialect other than PostgreSQL and SQLite.
        """
        if self.database_url is None:
            return URL.create("sqlite+aiosqlite", database=str(self.home.absolute() / "spine.db"))
        url = make_url(self.database_url.get_secret_value())
        drivers = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "sqlite": "sqlite+aiosqlite"}
        dialect = url.drivername.partition("+")[0]
        if dialect not in drivers:
            raise ValueError(f"SPINE_DATABASE_URL names the dialect {dialect!r}; Spine runs on postgresql and sqlite")
        return url.set(drivername=drivers[dialect])


@lru_cache
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
