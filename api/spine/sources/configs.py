"""The stored configurations of sources, whose secrets are sealed."""

from spine.secrets.configs import SealedConfigs
from spine.secrets.keyring import Keyring
from spine.settings import Settings
from spine.sources.types import SOURCE_TYPES
from spine.sources.types.base import SourceConfig
from spine.tables.sources import Source


class SourceConfigs(SealedConfigs[SourceConfig]):
    """Checks and seals the configurations of sources to store them, and opens them again."""

    def __init__(self, settings: Settings) -> None:
        keyring = Keyring.from_settings(settings)
        super().__init__("source", SOURCE_TYPES, keyring, lambda config: config.check(settings))

    def of_source(self, source: Source) -> SourceConfig:
        """The configuration of a source with its secrets. Raises `SecretUnreadable`."""
        return self.open(source.source_type, source.config)
