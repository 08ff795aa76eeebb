"""The configuration of each source type, one file per type; `spine.sources.readers` has the readers."""

from spine.sources.types.base import SourceConfig
from spine.sources.types.database import DatabaseConfig
from spine.sources.types.file import FileConfig
from spine.sources.types.http import HttpConfig
from spine.sources.types.s3 import S3Config
from spine.sources.types.sftp import SftpConfig

SOURCE_TYPES: dict[str, type[SourceConfig]] = {
    "database": DatabaseConfig,
    "file": FileConfig,
    "http": HttpConfig,
    "s3": S3Config,
    "sftp": SftpConfig,
}
