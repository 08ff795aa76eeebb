"""Where flows keep their files, read from the environment each time a flow asks."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class FlowSettings(BaseSettings):
    """Places that flows write to.

    - ``SPINE_HOME``: folder for working files of this machine, default ``.spine`` below the working directory.
    - ``SPINE_WAREHOUSE_URL``: root of the published tables, a path or any fsspec URL (``s3://bucket/prefix``), default
      ``warehouse`` below ``SPINE_HOME``. Credentials and endpoints of object stores come from fsspec's own
      configuration (``FSSPEC_S3_ENDPOINT_URL``, ``FSSPEC_S3_KEY``, ...) or from the cloud's usual variables.
    """

    model_config = SettingsConfigDict(env_prefix="SPINE_", env_ignore_empty=True, extra="ignore")

    home: Path = Field(default=Path(".spine"))
    warehouse_url: str | None = Field(default=None)

    @property
    def warehouse(self) -> str:
        """The root of the published tables, as fsspec takes it."""
        return self.warehouse_url or str(self.home.absolute() / "warehouse")

    @property
    def staging(self) -> Path:
        """The folder that holds one folder of intermediate files for each flow run."""
        return self.home.absolute() / "staging"
