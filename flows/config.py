"""Where flows store their files, from the environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class FlowSettings(BaseSettings):
    """The places that flows write to.

    - ``SPINE_HOME``: the directory for working files of this machine; default ``.spine`` in the working directory.
    - ``SPINE_WAREHOUSE_URL``: the root of the published tables, a path or any fsspec URL (``s3://bucket/prefix``);
      default ``warehouse`` in ``SPINE_HOME``. Credentials and endpoints of object stores come from fsspec's own
      configuration (``FSSPEC_S3_ENDPOINT_URL``, ``FSSPEC_S3_KEY``, ...) or from the cloud's usual variables.
    """

    model_config = SettingsConfigDict(env_prefix="SPINE_", env_ignore_empty=True, extra="ignore")

    home: Path = Field(default=Path(".spine"))
    warehouse_url: str | None = Field(default=None)

    @property
    def warehouse(self) -> str:
        """The root of the published tables, as an fsspec URL."""
        return self.warehouse_url or str(self.home.absolute() / "warehouse")
