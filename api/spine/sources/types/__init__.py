"""The types of sources: one small file for each, read by the readers of `spine.sources.readers`."""

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
